//! `completions` and `man`: what packagers put beside the binary.

use std::path::Path;

use clap_complete::Shell;
use syncagent_protocol::Code;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::reference;

pub(super) fn completions(context: &Context, shell: Shell) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut reference::grammar(), "syncagent", &mut script);
    context.output.text(&String::from_utf8_lossy(&script))
}

pub(super) fn man(context: &Context, dir: Option<&Path>) -> Result {
    let Some(dir) = dir else {
        return context
            .output
            .text(&page("syncagent", reference::grammar())?);
    };
    let dir = context.absolute(dir);
    std::fs::create_dir_all(&dir).map_err(Failure::file(Code::Write, "create", &dir))?;
    let mut pages = vec![("syncagent".to_owned(), reference::grammar())];
    let mut n = 0;
    while let Some((name, command)) = pages.pop() {
        let below = command
            .get_subcommands()
            .filter(|below| !below.is_hide_set() && below.get_name() != "help");
        for below in below {
            pages.push((format!("{name}-{}", below.get_name()), below.clone()));
        }
        let file = dir.join(format!("{name}.1"));
        std::fs::write(&file, page(&name, command)?).map_err(Failure::file(
            Code::Write,
            "write",
            &file,
        ))?;
        n += 1;
    }
    context
        .output
        .remark(&format!("{n} pages are in {}", dir.display()));
    Ok(())
}

fn page(name: &str, command: clap::Command) -> Result<String> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|error| Failure::new(Code::State, format!("no man page: {error}")))?;
    let mut page = String::from_utf8_lossy(&page).into_owned();
    if name == "syncagent" {
        page.push_str(&reference::man_tail());
    }
    Ok(page)
}
