//! `ignore check`: is this synchronised, and which line says so?

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use syncagent_protocol::{Code, TreePath};
use syncagent_sync::ignore::{Ignore, LOCAL, MAX_LEN, SHARED, Verdict};

use crate::context::{Context, not_registered};
use crate::failure::{Failure, Result};
use crate::output::text;

#[derive(Serialize)]
struct Row {
    path: TreePath,
    ignored: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
}

pub(super) fn check(context: &Context, paths: &[PathBuf]) -> Result {
    #[derive(Serialize)]
    struct Answer {
        paths: Vec<Row>,
        /// What of the rules files on the way does not count.
        no_rules: Vec<String>,
    }
    let folder = context
        .home()?
        .config()?
        .folder
        .ok_or_else(not_registered)?;
    let mut rows = Vec::new();
    let mut no_rules = BTreeSet::new();
    for path in paths {
        let path = in_folder(context, &folder, path)?;
        let on_disk = folder.join(path.as_str());
        let (rules, bad) = rules_for(&folder, &path)?;
        no_rules.extend(bad);
        let verdict = rules.check(&path, on_disk.is_dir());
        rows.push(match verdict {
            Verdict::Kept => Row {
                path,
                ignored: false,
                rule: None,
                source: None,
                line: None,
            },
            Verdict::Ignored { rule, source, line } => Row {
                path,
                ignored: true,
                rule: Some(rule),
                source: Some(source),
                line: Some(line),
            },
        });
    }
    let answer = Answer {
        paths: rows,
        no_rules: no_rules.into_iter().collect(),
    };
    for problem in &answer.no_rules {
        context.output.remark(problem);
    }
    context.output.result(&answer, || {
        text::table(
            &answer
                .paths
                .iter()
                .map(|row| match (&row.rule, &row.source, row.line) {
                    (Some(rule), Some(source), Some(line)) => {
                        vec![
                            row.path.to_string(),
                            "ignored".to_owned(),
                            format!("{source}:{line}: {rule}"),
                        ]
                    }
                    _ => vec![row.path.to_string(), "synchronised".to_owned()],
                })
                .collect::<Vec<_>>(),
        )
    })
}

/// The path inside the folder: absolute, relative to the current directory if that is inside, else to the folder.
pub(super) fn in_folder(context: &Context, folder: &Path, path: &Path) -> Result<TreePath> {
    let outside = || Failure::usage(format!("{} is not in {}", path.display(), folder.display()));
    let inside = inside(context, folder, path).ok_or_else(outside)?;
    let parts = inside
        .components()
        .map(|part| part.as_os_str().to_str())
        .collect::<Option<Vec<_>>>();
    let text = parts.ok_or_else(outside)?.join("/");
    TreePath::parse(&text).map_err(|_| outside())
}

fn inside(context: &Context, folder: &Path, path: &Path) -> Option<PathBuf> {
    match path.is_absolute() {
        true => path.strip_prefix(folder).ok().map(Path::to_owned),
        false => match context.current_dir.strip_prefix(folder) {
            Ok(below) => Some(below.join(path)),
            Err(_) => Some(path.to_owned()),
        },
    }
}

/// Of something that is in the folder and has a name that is no text: its path as `status` shows it.
pub(super) fn no_text(context: &Context, folder: &Path, path: &Path) -> Option<String> {
    let inside = inside(context, folder, path).filter(|inside| inside.to_str().is_none())?;
    std::fs::symlink_metadata(folder.join(&inside)).ok()?;
    let shown = inside.components().map(|part| {
        let mut shown = String::new();
        for chunk in part.as_os_str().as_encoded_bytes().utf8_chunks() {
            shown.push_str(&chunk.valid().escape_debug().to_string());
            for byte in chunk.invalid() {
                shown.push_str(&format!("\\x{byte:02x}"));
            }
        }
        shown
    });
    Some(shown.collect::<Vec<_>>().join("/"))
}

/// The rules in the folder's root and in every directory on the way.
/// With them, what of these files does not count.
pub(super) fn rules_for(folder: &Path, path: &TreePath) -> Result<(Ignore, Vec<String>)> {
    let mut ignore = Ignore::new(false);
    let mut no_rules = Vec::new();
    let mut at = Some(path.clone());
    while let Some(dir) = at {
        for name in [SHARED, LOCAL] {
            let Ok(name) = syncagent_protocol::Name::parse(name) else {
                continue;
            };
            let file = dir.join(&name);
            let mut bytes = Vec::new();
            let on_disk = folder.join(file.as_str());
            let read = std::fs::File::open(&on_disk)
                .and_then(|open| open.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes));
            match read {
                Ok(_) => no_rules.extend(ignore.read_file(&file, &bytes)),
                // A directory of that name holds no rules, nor does the way to it where a file is.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory
                    ) => {}
                Err(error) => return Err(Failure::file(Code::Read, "read", &on_disk)(error)),
            }
        }
        at = dir.parent();
    }
    Ok((ignore, no_rules))
}
