//! Disks that are small, fill up, go away and come back: what a mount namespace of a test's own shows. It needs no
//! root, and nothing of it is seen, or left, outside.

#[cfg(target_os = "linux")]
pub(crate) use linux::Mounts;

/// Nothing can be mounted here.
#[cfg(not(target_os = "linux"))]
pub(crate) enum Mounts {}

#[cfg(not(target_os = "linux"))]
impl Mounts {
    pub(crate) fn plain(&self, _: &std::process::Command) -> std::process::Command {
        match *self {}
    }

    pub(crate) fn seen(&self, _: &std::path::Path) -> std::path::PathBuf {
        match *self {}
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};

    use crate::world::like;

    /// Without these nothing of this can be tested here; so the test fails, and says what to do.
    const HELP: &str = "This test needs a user and a mount namespace. \
        `sysctl user.max_user_namespaces` must be above 0; where they exist, `kernel.unprivileged_userns_clone` must be 1 and \
        `kernel.apparmor_restrict_unprivileged_userns` 0; a container must allow them (Docker: `--security-opt \
        seccomp=unconfined`, `--security-opt apparmor=unconfined`, or `--privileged`). `unshare`, `nsenter` and `setpriv` are in \
        util-linux, `mount` in the package of that name.";

    /// A process that does nothing but keep the namespace.
    pub(crate) struct Mounts {
        keeper: Child,
    }

    impl Mounts {
        pub(crate) fn new() -> Self {
            let mut keeper = Command::new("unshare")
                .args(["--user", "--map-root-user", "--mount"])
                .args(["--propagation", "private", "--"])
                .args(["sh", "-c", "echo ready && exec cat"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("unshare: {error}. {HELP}"));
            let mut line = String::new();
            BufReader::new(keeper.stdout.take().unwrap())
                .read_line(&mut line)
                .unwrap();
            if line != "ready\n" {
                let mut said = String::new();
                let _ = keeper.stderr.take().unwrap().read_to_string(&mut said);
                panic!("{} {HELP}", said.trim());
            }
            Self { keeper }
        }

        /// Where a process outside finds what those inside have at `path`.
        pub(crate) fn seen(&self, path: &Path) -> PathBuf {
            let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
            root.join(path.strip_prefix("/").unwrap())
        }

        /// The same command inside, without any right that a plain user lacks.
        pub(crate) fn plain(&self, command: &Command) -> Command {
            let dir = command.get_current_dir().unwrap_or(Path::new("/"));
            let mut inside = self.enter();
            // Entering leaves the directory behind.
            inside
                .args(["sh", "-c"])
                .arg(r#"cd "$0" && exec setpriv --bounding-set -all --inh-caps -all "$@""#)
                .arg(dir)
                .arg(command.get_program())
                .args(command.get_args())
                .stdin(Stdio::null());
            like(command, &mut inside);
            inside
        }

        fn enter(&self) -> Command {
            let mut inside = Command::new("nsenter");
            inside
                .arg("--target")
                .arg(self.keeper.id().to_string())
                .args(["--user", "--mount", "--preserve-credentials", "--"]);
            inside
        }

        #[track_caller]
        fn run(&self, words: &[&str], paths: &[&Path]) {
            let output = self.enter().args(words).args(paths).output();
            let output = output.unwrap_or_else(|error| panic!("nsenter: {error}. {HELP}"));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{words:?}: {said} {HELP}");
        }

        /// Changes what the processes inside may have at most (`/proc/sys/user`). What it was before.
        pub(crate) fn limit(&self, name: &str, most: u64) -> u64 {
            let path = format!("/proc/sys/user/{name}");
            let before = self.enter().args(["cat", &path]).output().unwrap();
            let before = String::from_utf8(before.stdout).unwrap();
            let set = format!("echo {most} > {path}");
            self.run(&["sh", "-c", &set], &[]);
            let before = before.trim().parse();
            before.unwrap_or_else(|error| panic!("{path}: {error}. {HELP}"))
        }

        /// An empty disk of `mib` MiB.
        pub(crate) fn disk(&self, at: &Path, mib: u32) {
            fs::create_dir_all(at).unwrap();
            let options = format!("size={mib}m,mode=700");
            self.run(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs"], &[at]);
        }

        /// An empty disk that does not say when a file was made.
        pub(crate) fn disk_without_births(&self, at: &Path) {
            fs::create_dir_all(at).unwrap();
            self.run(&["mount", "-t", "ramfs", "-o", "mode=700", "ramfs"], &[at]);
            let file = self.seen(at).join("born");
            fs::write(&file, "").unwrap();
            assert!(fs::metadata(&file).unwrap().created().is_err());
            fs::remove_file(file).unwrap();
        }

        /// An empty disk of which `mib` MiB can be used, until what this names is removed: then it is `total` MiB.
        // To mount it anew with another size is root's alone.
        pub(crate) fn disk_with_reserve(&self, at: &Path, mib: u32, total: u32) -> PathBuf {
            self.disk(at, total);
            let reserve = self.seen(at).join("reserve");
            let len = usize::try_from(total - mib).unwrap() << 20;
            fs::write(&reserve, vec![0x55; len]).unwrap();
            reserve
        }

        /// Shows `what`, a directory or a file, at `at` as well, as a drive that is plugged in.
        pub(crate) fn attach(&self, what: &Path, at: &Path) {
            self.run(&["mount", "--bind"], &[what, at]);
        }

        /// Nothing can be written there any more.
        pub(crate) fn write_protect(&self, at: &Path) {
            self.run(&["mount", "-o", "remount,bind,ro"], &[at]);
        }

        /// The other way round.
        pub(crate) fn allow_writing(&self, at: &Path) {
            self.run(&["mount", "-o", "remount,bind,rw"], &[at]);
        }

        /// Takes a drive away, whoever uses it.
        pub(crate) fn detach(&self, at: &Path) {
            self.run(&["umount", "--lazy"], &[at]);
        }

        /// Leaves no room on the disk at `at`, nor any that was freed since the last call. Removing the file gives it
        /// back.
        pub(crate) fn fill(&self, at: &Path) -> PathBuf {
            let path = self.seen(at).join("something else");
            let mut file = fs::OpenOptions::new();
            let mut file = file.create(true).append(true).open(&path).unwrap();
            for len in [1 << 20, 4096, 1] {
                let block = vec![0x55; len];
                while std::io::Write::write_all(&mut file, &block).is_ok() {}
            }
            path
        }
    }

    impl Drop for Mounts {
        fn drop(&mut self) {
            let _ = self.keeper.kill();
            let _ = self.keeper.wait();
        }
    }
}
