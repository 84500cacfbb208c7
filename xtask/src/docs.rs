//! Makes the pages of docs/ that the product itself can print; a test of `syncagent` sees that they are current.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::workspace::{Workspace, cargo};

/// Page as the product calls it, and its file.
const PAGES: [(&str, &str); 2] = [("config", "docs/config.md"), ("cli", "docs/cli.md")];

pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    for (page, file) in PAGES {
        let line = "run --locked --quiet --package syncagent -- reference";
        let made = cargo()
            .args(line.split(' '))
            .arg(page)
            .current_dir(&workspace.root)
            .stderr(std::process::Stdio::inherit())
            .output()
            .context("cannot run cargo run")?;
        if !made.status.success() {
            bail!("the page {page} was not made");
        }
        fs::write(workspace.root.join(file), made.stdout)
            .with_context(|| format!("cannot write {file}"))?;
        println!("{file}");
    }
    Ok(ExitCode::SUCCESS)
}
