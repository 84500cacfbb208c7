//! A path inside the synchronised folder: names from the root down, never absolute, never `..`.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::name::{Name, NameError};

/// Zero or more names joined by `/`; empty means the root.
///
/// Ordered so that a directory comes directly before everything in it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct TreePath(String);

impl TreePath {
    /// The root of the folder.
    pub const ROOT: Self = Self(String::new());

    /// Parses `a/b/c`, as typed by a person: a trailing slash and `./` in front are forgiven.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let mut path = Self::ROOT;
        let text = text.strip_prefix("./").unwrap_or(text);
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.is_empty() || text == "." {
            return Ok(path);
        }
        for part in text.split('/') {
            path = path.join(&Name::parse(part)?);
        }
        Ok(path)
    }

    /// This path with one more name.
    #[must_use]
    pub fn join(&self, name: &Name) -> Self {
        let mut text = String::with_capacity(self.0.len() + 1 + name.as_str().len());
        text.push_str(&self.0);
        if !text.is_empty() {
            text.push('/');
        }
        text.push_str(name.as_str());
        Self(text)
    }

    /// The directory this path hangs in; none for the root.
    pub fn parent(&self) -> Option<Self> {
        match self.0.rfind('/') {
            Some(at) => Some(Self(self.0[..at].to_owned())),
            None if self.0.is_empty() => None,
            None => Some(Self::ROOT),
        }
    }

    /// The last name; none for the root.
    pub fn name(&self) -> Option<Name> {
        // Every component was a valid name when it was joined.
        self.0
            .rsplit('/')
            .next()
            .and_then(|last| Name::parse(last).ok())
    }

    /// The names from the root down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|part| !part.is_empty())
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `self` is `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &Self) -> bool {
        ancestor.is_root()
            || self
                .0
                .strip_prefix(&ancestor.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The least path that sorts after `self` and everything below it, whether or not such a path could exist. Not
    /// for the root, after which nothing sorts.
    #[must_use]
    pub fn past(&self) -> Self {
        // Below it a slash follows, which ranks under every byte; beside it a byte of a name, none of which is zero.
        Self(format!("{}\u{1}", self.0))
    }

    /// `self` with the leading `from` replaced by `to`; none if `self` is not within `from`.
    pub fn rebase(&self, from: &Self, to: &Self) -> Option<Self> {
        if !self.is_within(from) {
            return None;
        }
        let rest = self.0[from.0.len()..].trim_start_matches('/');
        Some(match (to.is_root(), rest.is_empty()) {
            (_, true) => to.clone(),
            (true, false) => Self(rest.to_owned()),
            (false, false) => Self(format!("{}/{rest}", to.0)),
        })
    }

    /// The path with `/` between its names, exact (not escaped).
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Name by name, so that "a/b" sorts before "a.txt" and a directory's content follows it: a slash ranks
        // below every byte of a name. Byte by byte, because maps of paths compare a great deal.
        let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        match a.iter().zip(b).position(|(a, b)| a != b) {
            Some(at) => rank(a[at]).cmp(&rank(b[at])),
            None => a.len().cmp(&b.len()),
        }
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl From<Name> for TreePath {
    fn from(name: Name) -> Self {
        Self(name.as_str().to_owned())
    }
}

/// The names from the root down.
impl<'a> FromIterator<&'a Name> for TreePath {
    fn from_iter<I: IntoIterator<Item = &'a Name>>(names: I) -> Self {
        names
            .into_iter()
            .fold(Self::ROOT, |path, name| path.join(name))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str(".")
        } else {
            crate::name::escape(&self.0, f)
        }
    }
}

impl Serialize for TreePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    #[test]
    fn what_is_past_a_path_is_past_all_of_it_and_nothing_else() {
        let path = |text: &str| TreePath::parse(text).unwrap();
        let past = path("a").past();
        for within in ["a", "a/b", "a/\u{10ffff}", "a/\u{1}"] {
            assert!(path(within) < past, "{within}");
        }
        for beside in ["a\u{1}", "a ", "a.b", "aa", "b"] {
            assert!(path(beside) >= past, "{beside}");
        }
    }

    #[test]
    fn a_directory_sorts_right_before_its_content() {
        let mut paths = [p("a.txt"), p("a/z"), p("a"), p("b"), p("a/b/c"), p("a/b")];
        paths.sort();
        assert_eq!(
            paths.map(|p| p.as_str().to_owned()),
            ["a", "a/b", "a/b/c", "a/z", "a.txt", "b"]
        );
    }

    #[test]
    fn the_order_is_that_of_names_one_by_one() {
        let texts = [
            "", "a", "a/a", "a/b", "a b", "a.", "a.b/c", "a\u{1}", "ab", "ab/c", "b", "\u{e9}",
            "\u{e9}/a",
        ];
        for (x, y) in texts.iter().flat_map(|x| texts.iter().map(move |y| (x, y))) {
            let (x, y) = (p(x), p(y));
            assert_eq!(x.cmp(&y), x.components().cmp(y.components()), "{x} {y}");
        }
    }

    #[test]
    fn climbing_out_is_not_a_path() {
        for bad in ["../x", "/etc", "a//b", "a/../b", "a/./b"] {
            assert!(TreePath::parse(bad).is_err(), "{bad}");
        }
        assert!(p("").is_root() && p(".").is_root() && p("./").is_root());
    }

    #[test]
    fn within_and_rebase() {
        assert!(p("a/b").is_within(&p("a")) && !p("ab").is_within(&p("a")));
        assert_eq!(p("a/b/c").rebase(&p("a"), &p("x/y")), Some(p("x/y/b/c")));
        assert_eq!(p("a").rebase(&p("a"), &p("x")), Some(p("x")));
        assert_eq!(p("ab").rebase(&p("a"), &p("x")), None);
        assert_eq!(p("a/b").parent(), Some(p("a")));
        assert_eq!(p("a").parent(), Some(TreePath::ROOT));
        assert_eq!(TreePath::ROOT.parent(), None);
    }
}
