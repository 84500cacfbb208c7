//! Tidies `.syncagent/tmp` after a crash. What is not proven to be ours, or to be in the vault already, gets a
//! visible name; see the table in [`super::apply`].

use syncagent_protocol::{Name, TreePath};

use super::apply::{ApplyError, Folder, Settled};
use super::disk::{At, EntryKind, ErrorKind, Stat, TempName};

/// What may be done with a leftover.
enum Verdict {
    /// It is ours, or the vault has it.
    Remove,
    /// It is wanted: an unfinished download.
    Keep,
    /// It may be the user's only copy.
    Rescue,
}

impl Folder {
    /// Call once, after the folder is locked and before anything else is done with it. `wanted` says which unfinished
    /// downloads ([`Folder::stage_resumable`]) are still of use.
    pub fn recover(&self, wanted: &dyn Fn(&str) -> bool) -> Result<Settled, ApplyError> {
        let temps = self.disk().list_temp()?;
        self.start_after(temps.iter().filter_map(id_of).max());
        for temp in temps
            .iter()
            .filter(|temp| temp.as_str().starts_with("aside-"))
        {
            self.undo_half_aside(temp)?;
        }
        for temp in &temps {
            let stat = match self.disk().stat(At::Temp(temp)) {
                Err(error) if error.kind == ErrorKind::NotFound => continue,
                result => result?,
            };
            match judge(temp, &stat, wanted) {
                Verdict::Keep => {}
                Verdict::Remove => self.disk().unlink(At::Temp(temp))?,
                Verdict::Rescue => drop(self.rescue(temp, None)?),
            }
        }
        self.settle()
    }

    /// A second name for a conflict copy was made, or about to be, when the machine died. The first one still has the
    /// file: then the conflict is still to be dealt with, and the second name goes. Else the first one has the new
    /// content already, and the second name is the conflict copy.
    fn undo_half_aside(&self, temp: &TempName) -> Result<(), ApplyError> {
        let mut text = vec![0; 16 * 1024];
        let n = self.disk().open(At::Temp(temp))?.read_at(&mut text, 0)?;
        if let Some((path, aside)) = parse_aside_note(&text[..n]) {
            let stats = (
                self.disk().stat(At::Tree(&path)),
                self.disk().stat(At::Tree(&aside)),
            );
            if let (Ok(path), Ok(second)) = stats
                && (path.inode, path.device) == (second.inode, second.device)
                && path.inode != 0
                && second.links > 1
            {
                self.disk().unlink(At::Tree(&aside))?;
                self.touch(&aside);
            }
        }
        Ok(())
    }
}

fn judge(temp: &TempName, stat: &Stat, wanted: &dyn Fn(&str) -> bool) -> Verdict {
    if stat.kind == EntryKind::Directory {
        return Verdict::Rescue;
    }
    let text = temp.as_str();
    let (kind, rest) = text.split_once('-').unwrap_or((text, ""));
    let ours = match kind {
        "new" | "aside" | "id" | "probe" => true,
        "part" if wanted(rest) => return Verdict::Keep,
        "part" => true,
        // The vault does not have it: it goes only if its other name, the conflict copy, is still there.
        "mine" => {
            let staged = rest.split('-').nth(1).and_then(hex);
            staged == Some(stat.inode) || stat.links > 1
        }
        "swap" => {
            let mut fields = rest.splitn(3, '-').skip(1);
            let staged = fields.next().and_then(hex);
            // Where files have no numbers nothing is exchanged either.
            staged.is_some_and(|inode| inode == 0 || inode == stat.inode)
                || fits(fields.next(), stat)
        }
        "out" => fits(rest.split_once('-').map(|(_, rest)| rest), stat),
        _ => false,
    };
    if ours {
        Verdict::Remove
    } else {
        Verdict::Rescue
    }
}

/// Whether the file is what EXPECTED, at the start of `fields`, says.
fn fits(fields: Option<&str>, stat: &Stat) -> bool {
    let mut fields = fields.unwrap_or("").splitn(4, '-').map(hex);
    let mut next = || fields.next().flatten();
    let expected = (next(), next(), next());
    expected
        == (
            Some(stat.inode),
            Some(stat.size),
            Some(stat.mtime_ns.cast_unsigned()),
        )
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

fn id_of(temp: &TempName) -> Option<u64> {
    temp.as_str().split('-').nth(1)?.parse().ok()
}

/// NAME in a temp's name.
pub(super) fn name_of(temp: &TempName) -> Option<Name> {
    let text = temp.as_str();
    let fields = match text.split('-').next() {
        Some("swap" | "mine") => 7,
        Some("out") => 6,
        _ => 1,
    };
    let name = text.splitn(fields, '-').nth(fields - 1).unwrap_or(text);
    Name::parse(name).ok()
}

/// What `aside-ID` holds: both paths, the first one's length in front, for names may hold any character.
pub(super) fn aside_note(path: &TreePath, aside: &TreePath) -> String {
    format!(
        "{} {}{}",
        path.as_str().len(),
        path.as_str(),
        aside.as_str()
    )
}

fn parse_aside_note(text: &[u8]) -> Option<(TreePath, TreePath)> {
    let (length, paths) = std::str::from_utf8(text).ok()?.split_once(' ')?;
    let (path, aside) = paths.split_at_checked(length.parse().ok()?)?;
    Some((TreePath::parse(path).ok()?, TreePath::parse(aside).ok()?))
}
