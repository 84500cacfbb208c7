//! What the file system of this machine can hold and tell apart.

use syncagent_protocol::{Name, NodeId, name::RESERVED};

/// The rules of one file system. Everything the vault can hold and this cannot stays in the vault.
#[derive(Debug, Clone, Copy)]
pub struct Placement {
    /// `a` and `A` are one name.
    pub case_insensitive: bool,
    /// Composed and decomposed forms are one name: maps a name to the form they share.
    pub normalise: Option<fn(&str) -> String>,
    /// Names that Windows refuses or changes: reserved characters and devices, trailing dot or space.
    pub windows_names: bool,
    /// The longest name, in bytes (where `utf16_lengths` is set: in UTF-16 units).
    pub max_name_len: usize,
    /// `max_name_len` counts UTF-16 units.
    pub utf16_lengths: bool,
    /// Symbolic links can be made.
    pub symlinks: bool,
    /// Files carry an exec bit. Without it the vault's is kept as it is.
    pub exec_bit: bool,
}

impl Placement {
    /// Linux and its like: names are bytes.
    pub const UNIX: Self = Self {
        case_insensitive: false,
        normalise: None,
        windows_names: false,
        max_name_len: 255,
        utf16_lengths: false,
        symlinks: true,
        exec_bit: true,
    };

    /// Windows with NTFS; whether links can be made is up to the system's settings.
    pub const WINDOWS: Self = Self {
        case_insensitive: true,
        normalise: None,
        windows_names: true,
        max_name_len: 255,
        utf16_lengths: true,
        symlinks: false,
        exec_bit: false,
    };

    /// The form of a name that all names share which this file system takes for one.
    pub fn key(&self, name: &Name) -> String {
        let text = match self.normalise {
            Some(form) => form(name.as_str()),
            None => name.as_str().to_owned(),
        };
        if self.case_insensitive {
            fold_case(&text)
        } else {
            text
        }
    }

    /// Why a name cannot stand in `parent` on this disk; none if it can.
    pub fn refuses(&self, parent: NodeId, name: &Name) -> Option<&'static str> {
        let text = name.as_str();
        let len = if self.utf16_lengths {
            text.encode_utf16().count()
        } else {
            text.len()
        };
        if len > self.max_name_len {
            return Some("the name is too long for this file system");
        }
        if parent == NodeId::ROOT && self.is_reserved(name) {
            return Some("the name is SyncAgent's own");
        }
        if self.windows_names {
            let reserved =
                |c: char| c < ' ' || matches!(c, '<' | '>' | ':' | '"' | '\\' | '|' | '?' | '*');
            if text.contains(reserved) {
                return Some("the name holds a character that Windows reserves");
            }
            if text.ends_with(['.', ' ']) {
                return Some("Windows drops the dot or space at the end of the name");
            }
            if is_device(text) {
                return Some("Windows takes the name for a device");
            }
        }
        None
    }

    /// Anything this file system could resolve to `.syncagent` in the root.
    fn is_reserved(&self, name: &Name) -> bool {
        let seen: String = name.as_str().chars().filter(|c| !is_unseen(*c)).collect();
        let folds = self.case_insensitive || self.normalise.is_some();
        if self.key(name) == RESERVED || folds && fold_case(&seen) == RESERVED {
            return true;
        }
        // The 8.3 short names that Windows derives from `.syncagent`: SYNCAG~1, SYxxxx~1.
        let lower = fold_case(name.as_str());
        self.windows_names
            && (lower.trim_end_matches(['.', ' ']) == RESERVED
                || lower.split_once('~').is_some_and(|(stem, digits)| {
                    stem.starts_with("sy")
                        && !digits.is_empty()
                        && digits.bytes().all(|b| b.is_ascii_digit())
                }))
    }
}

/// Case taken out: by way of upper case, because file systems fold so, and some letters share one (`ſ`, `s`).
fn fold_case(text: &str) -> String {
    text.chars()
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .collect()
}

/// What HFS+ passes over when it compares names (Apple's Technical Note 1150, "Unicode Subtleties").
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

fn is_device(text: &str) -> bool {
    let stem = text
        .split('.')
        .next()
        .unwrap_or(text)
        .trim_end_matches(' ')
        .to_ascii_uppercase();
    if matches!(
        stem.as_str(),
        "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$"
    ) {
        return true;
    }
    let digits = stem
        .strip_prefix("COM")
        .or_else(|| stem.strip_prefix("LPT"));
    digits.is_some_and(|d| {
        matches!(
            d,
            "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn what_windows_refuses() {
        for bad in [
            "a:b",
            "a\\b",
            "CON",
            "con.txt",
            "LPT1",
            "com¹.x",
            "a.",
            "a ",
            "a\tb",
            ".SyncAgent",
            "SYNCAG~1",
        ] {
            assert!(
                Placement::WINDOWS
                    .refuses(NodeId::ROOT, &name(bad))
                    .is_some(),
                "{bad}"
            );
            assert!(
                Placement::UNIX.refuses(NodeId::ROOT, &name(bad)).is_none(),
                "{bad}"
            );
        }
        for good in ["a", "console", "com", "com10", "a.b", ".a", "sync~x"] {
            assert_eq!(
                Placement::WINDOWS.refuses(NodeId::ROOT, &name(good)),
                None,
                "{good}"
            );
        }
        assert!(
            Placement::UNIX
                .refuses(NodeId::ROOT, &name(".syncagent"))
                .is_some()
        );
        assert!(
            Placement::UNIX
                .refuses(NodeId([1; 16]), &name(".syncagent"))
                .is_none()
        );
    }

    #[test]
    fn whatever_a_system_takes_for_our_own_directory() {
        fn same(text: &str) -> String {
            text.to_owned()
        }
        let mac = Placement {
            case_insensitive: true,
            normalise: Some(same),
            ..Placement::UNIX
        };
        let refuses = |placement: &Placement, text: &str| {
            let root = placement.refuses(NodeId::ROOT, &name(text));
            (
                root.is_some(),
                placement.refuses(NodeId([1; 16]), &name(text)).is_some(),
            )
        };
        for (text, on_mac, on_windows) in [
            (".syncagent", true, true),
            (".SYNCAGENT", true, true),
            (".\u{17f}yncagent", true, true),
            // HFS+ does not see these characters.
            (".sync\u{200c}agent", true, true),
            ("\u{feff}.SyncAgent\u{202e}", true, true),
            (".syncagent.", false, true),
            (".syncagent . ", false, true),
            ("SYNCAG~1", false, true),
            ("sy3f0a~12", false, true),
            (".syncagent::$INDEX_ALLOCATION", false, true),
            (".syncagent2", false, false),
        ] {
            assert_eq!(refuses(&mac, text).0, on_mac, "{text:?}");
            assert_eq!(refuses(&Placement::WINDOWS, text).0, on_windows, "{text:?}");
            assert!(
                !refuses(&mac, text).1,
                "elsewhere it is a name like any other: {text:?}"
            );
        }
        // What would lead elsewhere on Windows is no name there, in any directory.
        for text in [
            "..\\x",
            "C:\\x",
            "C:x",
            "\\\\host\\share",
            ".. ",
            "...",
            "a\u{1}",
        ] {
            assert_eq!(refuses(&Placement::WINDOWS, text), (true, true), "{text:?}");
            assert_eq!(refuses(&Placement::UNIX, text), (false, false), "{text:?}");
        }
    }

    #[test]
    fn lengths() {
        let (fits, over) = (name(&"ä".repeat(127)), name(&"ä".repeat(128)));
        assert!(Placement::UNIX.refuses(NodeId::ROOT, &fits).is_none());
        assert!(Placement::UNIX.refuses(NodeId::ROOT, &over).is_some());
        assert!(Placement::WINDOWS.refuses(NodeId::ROOT, &over).is_none());
    }
}
