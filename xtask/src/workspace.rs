//! Where things are: the tree, what cargo builds, and what is kept between runs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The places that every command reads from and writes to.
pub(crate) struct Workspace {
    /// The root of the tree.
    pub root: PathBuf,
    /// What cargo builds goes here.
    pub target: PathBuf,
    /// What is slow to fetch stays here; deleting it costs time and nothing else.
    pub cache: PathBuf,
}

impl Workspace {
    /// Asks cargo, which alone knows of every way to move the target directory.
    pub(crate) fn locate() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest
            .parent()
            .context("xtask stands in no workspace")?
            .to_path_buf();
        let output = cargo()
            .args(["metadata", "--no-deps", "--format-version=1"])
            .current_dir(&root)
            .output()
            .context("cannot run cargo metadata")?;
        if !output.status.success() {
            bail!(
                "cargo metadata failed:\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let metadata: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("cargo metadata is no JSON")?;
        let target = metadata["target_directory"]
            .as_str()
            .context("cargo metadata names no target directory")?
            .into();
        let cache = cache_root()
            .unwrap_or_else(|| root.join("target"))
            .join("syncagent");
        Ok(Self {
            root,
            target,
            cache,
        })
    }

    /// The product as `cargo build --release` leaves it.
    pub(crate) fn release_binary(&self) -> PathBuf {
        self.target
            .join("release")
            .join(format!("syncagent{}", env::consts::EXE_SUFFIX))
    }
}

/// The cargo that runs this xtask.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn cache_root() -> Option<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .or_else(|| set("LOCALAPPDATA"))
}
