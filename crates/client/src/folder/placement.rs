//! What this file system cannot hold or cannot tell apart (format.md, "Names").

use syncagent_protocol::Name;
use syncagent_protocol::name::RESERVED;
use unicode_normalization::UnicodeNormalization;

use super::disk::{At, Disk, DiskError, ErrorKind, TempName};

/// The longest path below the root in bytes: beyond, most programs cannot open the file (`PATH_MAX`).
pub const MAX_PATH_LEN: usize = 4000;

/// What a file system can hold, found out by trying ([`probe`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// `a` and `A` are one name.
    pub folds_case: bool,
    /// A composed and a decomposed letter are one name.
    pub folds_normalisation: bool,
    /// Windows' rules: reserved characters and names, no dot or space at the end.
    pub windows_names: bool,
    /// A name has at most 255 UTF-16 units, not bytes.
    pub counts_utf16: bool,
}

impl Placement {
    /// A file system that holds every name byte for byte, as those of Linux do.
    pub const EXACT: Self = Self {
        folds_case: false,
        folds_normalisation: false,
        windows_names: false,
        counts_utf16: false,
    };

    /// Whether a name can be placed; if not, why.
    pub fn check(&self, name: &Name, in_root: bool) -> Result<(), &'static str> {
        let text = name.as_str();
        let too_long = if self.counts_utf16 {
            text.encode_utf16().count() > 255
        } else {
            text.len() > 255
        };
        if too_long {
            return Err("the name is longer than this file system can hold");
        }
        if in_root && self.resolves_to_own(text) {
            return Err("the name stands for SyncAgent's own directory");
        }
        if self.windows_names {
            windows_rules(text)?;
        }
        Ok(())
    }

    /// Whether `text`, in the root, could lead into `.syncagent`.
    fn resolves_to_own(&self, text: &str) -> bool {
        if text == RESERVED
            || (self.folds_case || self.folds_normalisation) && fold(text) == RESERVED
        {
            return true;
        }
        if !self.windows_names {
            return false;
        }
        // A stream (`.syncagent::$INDEX_ALLOCATION`), dots and spaces at the end.
        let head = text
            .split(':')
            .next()
            .unwrap_or("")
            .trim_end_matches(['.', ' ']);
        let folded = fold(head);
        // The short name: `SYNCAG~1`, or `SY` and a hash when there are several such.
        let short = folded.split_once('~').is_some_and(|(stem, number)| {
            stem.starts_with("sy")
                && stem.len() <= 6
                && number.starts_with(|c: char| c.is_ascii_digit())
        });
        folded == RESERVED || short
    }

    /// Two names with one key cannot both be placed in one directory.
    pub fn fold_key(&self, name: &Name) -> String {
        let text = name.as_str();
        match (self.folds_case, self.folds_normalisation) {
            (true, _) => fold(text),
            (false, true) => text.nfc().collect(),
            (false, false) => text.to_owned(),
        }
    }
}

/// Case and normalisation taken out, at least as far as any file system does.
pub(super) fn fold(text: &str) -> String {
    // Ignorable characters: HFS+ drops them when it compares (CVE-2014-9390).
    let visible = |c: &char| !matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    text.nfd()
        .filter(visible)
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .nfc()
        .collect()
}

/// What Windows does not take. Shown to people as the reason.
fn windows_rules(text: &str) -> Result<(), &'static str> {
    if text
        .chars()
        .any(|c| matches!(c, '<' | '>' | ':' | '"' | '\\' | '|' | '?' | '*') || u32::from(c) < 32)
    {
        return Err("the name contains a character that is reserved here");
    }
    if text.ends_with(['.', ' ']) {
        return Err("the name ends with a dot or space, which is not kept here");
    }
    let stem = text
        .split('.')
        .next()
        .unwrap_or("")
        .trim_end_matches(' ')
        .to_uppercase();
    let device = matches!(
        stem.as_str(),
        "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$"
    ) || stem
        .strip_prefix("COM")
        .or_else(|| stem.strip_prefix("LPT"))
        .is_some_and(|rest| {
            matches!(
                rest,
                "0" | "1"
                    | "2"
                    | "3"
                    | "4"
                    | "5"
                    | "6"
                    | "7"
                    | "8"
                    | "9"
                    | "\u{b9}"
                    | "\u{b2}"
                    | "\u{b3}"
            )
        });
    if device {
        Err("the name is that of a device here")
    } else {
        Ok(())
    }
}

/// Finds out by making files in `.syncagent/tmp`, which must be prepared and locked.
pub fn probe(disk: &dyn Disk) -> Result<Placement, DiskError> {
    Ok(Placement {
        folds_case: same(disk, "probe-case", "probe-CASE")?,
        folds_normalisation: same(disk, "probe-\u{e9}", "probe-e\u{301}")?,
        windows_names: !holds(disk, "probe-a:b?")? || !holds(disk, "probe-dot.")?,
        counts_utf16: holds(disk, &format!("probe-{}", "\u{e9}".repeat(200)))?,
    })
}

fn same(disk: &dyn Disk, made: &str, other: &str) -> Result<bool, DiskError> {
    let (Some(made), Some(other)) = (TempName::parse(made), TempName::parse(other)) else {
        return Ok(false);
    };
    make(disk, &made)?;
    let found = disk.stat(At::Temp(&other));
    disk.unlink(At::Temp(&made))?;
    match found {
        Ok(_) => Ok(true),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a file of this name can be made and is then listed under exactly this name.
fn holds(disk: &dyn Disk, text: &str) -> Result<bool, DiskError> {
    let Some(name) = TempName::parse(text) else {
        return Ok(false);
    };
    match make(disk, &name) {
        Ok(()) => {}
        Err(error) if matches!(error.kind, ErrorKind::Full | ErrorKind::Denied) => {
            return Err(error);
        }
        Err(_) => return Ok(false),
    }
    let listed = disk.list_temp()?.contains(&name);
    disk.unlink(At::Temp(&name))?;
    Ok(listed)
}

fn make(disk: &dyn Disk, name: &TempName) -> Result<(), DiskError> {
    match disk.create_temp(name) {
        Ok(_) => Ok(()),
        // Left by a probe that was cut short.
        Err(error) if error.kind == ErrorKind::Exists => Ok(()),
        Err(error) => Err(error),
    }
}
