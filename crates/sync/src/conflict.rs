//! Names for what had to give way: `plan.conflict-20260102-030405-laptop.md`.

use std::fmt;

use syncagent_protocol::Name;

/// A moment in UTC, broken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Utc {
    /// Year.
    pub year: i64,
    /// Month, 1..=12.
    pub month: u8,
    /// Day, 1..=31.
    pub day: u8,
    /// Hour, 0..=23.
    pub hour: u8,
    /// Minute, 0..=59.
    pub minute: u8,
    /// Second, 0..=59.
    pub second: u8,
}

/// The longest name made here, in bytes: what common file systems hold.
pub const MAX_COPY_NAME_LEN: usize = 255;

impl Utc {
    /// The moment `seconds` after 1970-01-01.
    pub fn from_unix_s(seconds: i64) -> Self {
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Howard Hinnant's `civil_from_days`: years begin in March, eras are 400 years long.
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let day_of_era = z.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: month as u8,
            day: (day_of_year - (153 * march_month + 2) / 5 + 1) as u8,
            hour: (rest / 3600) as u8,
            minute: (rest / 60 % 60) as u8,
            second: (rest % 60) as u8,
        }
    }

    fn stamp(&self) -> String {
        let Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
        } = self;
        format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
    }
}

/// `2026-01-02 03:04:05Z`.
impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
        } = self;
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

/// `name.conflict-YYYYMMDD-HHMMSS-MACHINE.ext`: a name that `taken` does not know.
pub fn conflict_name(
    name: &Name,
    now: Utc,
    machine: &str,
    taken: impl FnMut(&Name) -> bool,
) -> Name {
    free_name(name, &format!("conflict-{}-{machine}", now.stamp()), taken)
}

/// `name.restored-YYYYMMDD-HHMMSS.ext`: a name that `taken` does not know.
pub fn restored_name(name: &Name, now: Utc, taken: impl FnMut(&Name) -> bool) -> Name {
    free_name(name, &format!("restored-{}", now.stamp()), taken)
}

/// `stem.tag.ext`, `stem.tag-2.ext`, ...: the first that is free, cut so that it fits everywhere.
pub(crate) fn free_name(name: &Name, tag: &str, mut taken: impl FnMut(&Name) -> bool) -> Name {
    let mut counter = 1_u64;
    loop {
        let numbered = if counter == 1 {
            tag.to_owned()
        } else {
            format!("{tag}-{counter}")
        };
        let candidate = assemble(name.as_str(), &numbered);
        // Made of parts of valid names, so it always parses; a number always fits.
        if let Ok(candidate) = Name::parse(&candidate)
            && !taken(&candidate)
        {
            return candidate;
        }
        counter += 1;
    }
}

fn assemble(name: &str, tag: &str) -> String {
    let (stem, extension) = split(name);
    // A machine's name is at most 32 bytes, but what arrives here may be anything.
    let tag = cut(&tag.replace(['/', '\0'], "_"), 128).to_owned();
    let extension = if extension.len() > 64 { "" } else { extension };
    let room = MAX_COPY_NAME_LEN - 1 - tag.len() - extension.len();
    let stem = if extension.is_empty() { name } else { stem };
    format!("{}.{tag}{extension}", cut(stem, room))
}

/// Stem and extension (with its dot). `.tar.gz` and its like count as one; a leading dot starts no extension.
fn split(name: &str) -> (&str, &str) {
    let Some(dot) = name
        .rfind('.')
        .filter(|dot| *dot > 0 && dot + 1 < name.len())
    else {
        return (name, "");
    };
    let (stem, extension) = name.split_at(dot);
    if stem.bytes().all(|b| b == b'.') {
        return (name, "");
    }
    let archive = matches!(
        extension,
        ".gz" | ".bz2" | ".xz" | ".zst" | ".lz" | ".lz4" | ".Z"
    );
    match stem.strip_suffix(".tar") {
        Some(short) if archive && !short.is_empty() => name.split_at(short.len()),
        _ => (stem, extension),
    }
}

/// At most `len` bytes of `text`, cut where a character ends.
fn cut(text: &str, len: usize) -> &str {
    &text[..text.floor_char_boundary(len)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Utc = Utc {
        year: 2026,
        month: 1,
        day: 2,
        hour: 3,
        minute: 4,
        second: 5,
    };

    fn copy(name: &str) -> String {
        conflict_name(&Name::parse(name).unwrap(), NOW, "laptop", |_| false)
            .as_str()
            .to_owned()
    }

    #[test]
    fn names() {
        for (name, want) in [
            ("plan.md", "plan.conflict-20260102-030405-laptop.md"),
            ("plan", "plan.conflict-20260102-030405-laptop"),
            ("a.tar.gz", "a.conflict-20260102-030405-laptop.tar.gz"),
            ("a.b.c", "a.b.conflict-20260102-030405-laptop.c"),
            (".bashrc", ".bashrc.conflict-20260102-030405-laptop"),
            (".a.txt", ".a.conflict-20260102-030405-laptop.txt"),
            (".tar.gz", ".tar.conflict-20260102-030405-laptop.gz"),
            ("..a", "..a.conflict-20260102-030405-laptop"),
            ("a.", "a..conflict-20260102-030405-laptop"),
        ] {
            assert_eq!(copy(name), want);
        }
    }

    #[test]
    fn the_counter_finds_a_free_name() {
        let name = Name::parse("a.txt").unwrap();
        let mut seen = 0;
        let got = conflict_name(&name, NOW, "m", |_| {
            seen += 1;
            seen <= 2
        });
        assert_eq!(got.as_str(), "a.conflict-20260102-030405-m-3.txt");
        assert_eq!(
            restored_name(&name, NOW, |_| false).as_str(),
            "a.restored-20260102-030405.txt"
        );
    }

    #[test]
    fn names_are_cut_at_a_character() {
        for name in [
            "ä".repeat(500),
            format!("{}.txt", "日".repeat(300)),
            format!("a.{}", "x".repeat(300)),
        ] {
            let got = copy(&name);
            assert!(
                got.len() <= MAX_COPY_NAME_LEN && got.contains(".conflict-2026"),
                "{got}"
            );
        }
        assert!(copy(&format!("{}.txt", "日".repeat(300))).ends_with(".txt"));
    }

    #[test]
    fn calendar() {
        for (s, want) in [
            (0, "19700101-000000"),
            (951_782_399, "20000228-235959"),
            (951_782_400, "20000229-000000"),
            (1_700_000_000, "20231114-221320"),
            (-1, "19691231-235959"),
        ] {
            assert_eq!(Utc::from_unix_s(s).stamp(), want);
        }
    }
}
