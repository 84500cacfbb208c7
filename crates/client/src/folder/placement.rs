//! Finds out what this file system can hold and tell apart; the rules themselves are pure and stand in
//! [`syncagent_sync::placement`].

use syncagent_sync::Placement;
use unicode_normalization::UnicodeNormalization;

use super::disk::{At, Disk, DiskError, ErrorKind, TempName};

/// Case and normalisation taken out, at least as far as any file system does.
pub fn fold(text: &str) -> String {
    // Ignorable characters: HFS+ drops them when it compares (CVE-2014-9390).
    let visible = |c: &char| !matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    text.nfd()
        .filter(visible)
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .nfc()
        .collect()
}

pub(crate) fn composed(text: &str) -> String {
    text.nfc().collect()
}

/// Finds out by making files in `.syncagent/tmp`, which must be prepared and locked.
pub fn probe(disk: &dyn Disk) -> Result<Placement, DiskError> {
    let folds_case = same(disk, "probe-case", "probe-CASE")?;
    let folds_forms = same(disk, "probe-\u{e9}", "probe-e\u{301}")?;
    let capabilities = disk.capabilities();
    Ok(Placement {
        case_insensitive: folds_case,
        normalise: match (folds_case, folds_forms) {
            (true, true) => Some(fold),
            (false, true) => Some(composed),
            _ => None,
        },
        windows_names: !holds(disk, "probe-a:b?")? || !holds(disk, "probe-dot.")?,
        max_name_len: 255,
        utf16_lengths: holds(disk, &format!("probe-{}", "\u{e9}".repeat(200)))?,
        symlinks: capabilities.symlinks,
        exec_bit: capabilities.exec,
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
