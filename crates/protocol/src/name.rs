//! One valid component of a path: exact, well-formed UTF-8, never normalised (format.md, "Names").

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest name, in bytes.
pub const MAX_NAME_LEN: usize = 1024;

/// The directory in the root of a synchronised folder that belongs to SyncAgent itself.
pub const RESERVED: &str = ".syncagent";

/// A name of a file, directory or link. Parsed once at the border, valid ever after. Copies share its text: one name
/// stands in many maps.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing between two slashes.
    #[error("the name is empty")]
    Empty,
    /// Over [`MAX_NAME_LEN`] bytes.
    #[error("the name is longer than {MAX_NAME_LEN} bytes")]
    TooLong,
    /// A slash or a NUL.
    #[error("the name contains a slash or a NUL")]
    Separator,
    /// `.` or `..`.
    #[error("'.' and '..' are not names")]
    Dots,
    /// Not UTF-8.
    #[error("the name is not well-formed UTF-8")]
    NotUtf8,
}

impl Name {
    /// Checks the rules that hold everywhere in the tree.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text {
            "" => Err(NameError::Empty),
            "." | ".." => Err(NameError::Dots),
            _ if text.len() > MAX_NAME_LEN => Err(NameError::TooLong),
            _ if text.bytes().any(|b| b == b'/' || b == 0) => Err(NameError::Separator),
            _ => Ok(Self(text.into())),
        }
    }

    /// [`Name::parse`] for bytes from the network or a disk.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NameError> {
        Self::parse(std::str::from_utf8(bytes).map_err(|_| NameError::NotUtf8)?)
    }

    /// Whether a node of this name in the root would collide with SyncAgent's own directory.
    pub fn is_reserved_in_root(&self) -> bool {
        &*self.0 == RESERVED
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Shown with control and direction-changing characters escaped: a name must not redraw a terminal.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(&self.0, f)
    }
}

/// `text` that somebody else wrote, as it may stand in a line for a person: control characters and Unicode bidi controls
/// are escaped as `\u{..}`, and what goes beyond `most` characters is cut off.
pub fn shown(text: &str, most: usize) -> String {
    struct Escaped<'a>(&'a str);
    impl fmt::Display for Escaped<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            escape(self.0, f)
        }
    }
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", Escaped(&text[..end])),
        None => Escaped(text).to_string(),
    }
}

/// Whether a character does something to a terminal instead of standing there: controls (C0, C1, DEL) and Unicode bidi
/// controls.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes `text` with control characters and Unicode bidi controls escaped as `\u{..}`.
pub(crate) fn escape(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for c in text.chars() {
        if steers(c) {
            write!(f, "{}", c.escape_unicode())?;
        } else {
            write!(f, "{c}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_wrote_stands_in_one_line() {
        for (text, most, want) in [
            ("", 0, ""),
            ("laptop", 6, "laptop"),
            ("laptop", 3, "lap..."),
            ("grün 日本", 7, "grün 日本"),
            ("grün 日本", 6, "grün 日..."),
            ("\r\x1b[2Kin sync\n", 99, "\\u{d}\\u{1b}[2Kin sync\\u{a}"),
            ("\u{9b}2K\u{7f}\t", 99, "\\u{9b}2K\\u{7f}\\u{9}"),
            ("a\u{202e}b\u{2066}", 99, "a\\u{202e}b\\u{2066}"),
        ] {
            assert_eq!(shown(text, most), want, "{text:?}");
        }
    }

    #[test]
    fn rules() {
        for (text, want) in [
            ("a", Ok(())),
            (" ", Ok(())),
            ("CON", Ok(())),
            ("...", Ok(())),
            ("a\nb", Ok(())),
            ("e\u{301}", Ok(())),
            ("", Err(NameError::Empty)),
            (".", Err(NameError::Dots)),
            ("..", Err(NameError::Dots)),
            ("a/b", Err(NameError::Separator)),
            ("a\0b", Err(NameError::Separator)),
        ] {
            assert_eq!(Name::parse(text).map(drop), want, "{text:?}");
        }
        assert!(Name::parse(&"x".repeat(1024)).is_ok());
        assert_eq!(Name::parse(&"x".repeat(1025)), Err(NameError::TooLong));
        assert_eq!(Name::from_bytes(b"\xff"), Err(NameError::NotUtf8));
    }

    #[test]
    fn shown_names_cannot_steer_a_terminal() {
        let name = Name::parse("a\x1b[2J\u{202e}txt").unwrap();
        assert_eq!(name.to_string(), "a\\u{1b}[2J\\u{202e}txt");
    }
}
