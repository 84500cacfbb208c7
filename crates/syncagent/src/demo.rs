//! `demo`: a server and two machines on this computer, set up and run as in production, by the same binary.
//!
//! Every step is repeated until its result is there, so a demonstration that was killed at any moment goes on with the
//! same vault. Children end when their stdin does, which is when this process ends, however it ends.

mod children;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use syncagent_client::home::Home;
use syncagent_protocol::Code;
use syncagent_vault::random;

use self::children::{Child, Children};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::{private_file, signals};

/// What makes a directory one of ours: only `demo` makes it, in the same moment as the directory.
const OWN: &str = ".demo";
const MACHINES: [&str; 2] = ["laptop", "desktop"];
/// How long a child may take to come up, and one of a demonstration before it to go down.
const PATIENCE: Duration = Duration::from_secs(60);

/// The directory of a demonstration.
struct Place {
    dir: PathBuf,
}

impl Place {
    fn own(&self, name: &str) -> PathBuf {
        self.dir.join(OWN).join(name)
    }

    fn server(&self) -> PathBuf {
        self.dir.join("server")
    }

    fn password(&self) -> PathBuf {
        self.dir.join("password")
    }

    fn folder(&self, machine: &str) -> PathBuf {
        self.dir.join(machine)
    }

    fn home(&self, machine: &str) -> Home {
        Home::at(self.own(machine))
    }
}

pub(crate) fn run(context: &Context, dir: &Path) -> Result {
    let place = take(context, dir)?;
    let _alone = lock(&place)?;
    write_password(context, &place)?;
    context.block_on(async {
        let told_to_end = signals::told_to_end(context.global.until_eof)?;
        tokio::pin!(told_to_end);
        let children = Children::new(context, place.own("logs"))?;
        let mut running = tokio::select! {
            running = start(context, &place, &children) => running?,
            () = &mut told_to_end => return Ok(()),
        };
        let ended = tokio::select! {
            ended = first_to_end(&mut running) => Some(ended),
            () = &mut told_to_end => None,
        };
        context.output.remark("Stopping ...");
        for child in running {
            child.stop().await;
        }
        match ended {
            None => Ok(()),
            Some(name) => Err(Failure::new(
                Code::State,
                format!(
                    "{name} ended by itself: {} says why",
                    place.own("logs").join(format!("{name}.log")).display()
                ),
            )),
        }
    })
}

/// Makes the directory, or takes one that a demonstration made.
fn take(context: &Context, dir: &Path) -> Result<Place> {
    let dir = context.absolute(dir);
    let failed = |error| Failure::file(Code::Write, "make the demonstration in", &dir)(error);
    if dir.join(OWN).is_dir() {
        return Ok(Place {
            dir: fs::canonicalize(&dir).map_err(failed)?,
        });
    }
    if fs::symlink_metadata(&dir).is_ok() {
        return Err(Failure::usage(format!(
            "{} was not made by a demonstration, so it is left alone: name another directory",
            dir.display()
        )));
    }
    // Made whole and then named, so that whoever is killed in between leaves nothing that is refused the next time.
    let name = dir
        .file_name()
        .ok_or_else(|| Failure::usage("name a directory for the demonstration"))?;
    let tag: [u8; 4] = random::bytes(&*context.random);
    let new = dir.with_file_name(format!(
        ".{}-{:08x}",
        name.to_string_lossy(),
        u32::from_be_bytes(tag)
    ));
    fs::create_dir_all(new.join(OWN))
        .and_then(|()| fs::rename(&new, &dir))
        .map_err(failed)?;
    Ok(Place {
        dir: fs::canonicalize(&dir).map_err(failed)?,
    })
}

/// One demonstration at a time. The lock ends with the process, whatever ends that.
fn lock(place: &Place) -> Result<File> {
    let path = place.own("lock");
    let failed = |error| Failure::file(Code::Write, "lock", &path)(error);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::new(
            Code::Busy,
            format!(
                "a demonstration already runs in {}: stop it first",
                place.dir.display()
            ),
        )),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn write_password(context: &Context, place: &Place) -> Result {
    let path = place.password();
    if path.exists() {
        return Ok(());
    }
    let failed = |error| Failure::file(Code::Write, "write", &path)(error);
    let bytes: [u8; 15] = random::bytes(&*context.random);
    // Lower-case base32 in groups: 120 bits that can be read aloud.
    let letters: Vec<char> = "abcdefghijkmnpqrstuvwxyz23456789".chars().collect();
    let mut text = String::new();
    let bits = |i: usize| {
        (0..5).fold(0, |value, j| {
            value << 1 | usize::from(bytes[(5 * i + j) / 8] >> (7 - (5 * i + j) % 8) & 1)
        })
    };
    for i in 0..24 {
        if i > 0 && i % 6 == 0 {
            text.push('-');
        }
        text.push(letters[bits(i)]);
    }
    let new = place.own("password.new");
    let _ = fs::remove_file(&new);
    let mut file = private_file::create_new(&new).map_err(failed)?;
    file.write_all(format!("{text}\n").as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    fs::rename(&new, &path).map_err(failed)
}

/// Brings everything up and says so.
async fn start(context: &Context, place: &Place, children: &Children<'_>) -> Result<Vec<Child>> {
    let (server, url) = start_server(place, children).await?;
    let mut running = vec![server];
    for machine in MACHINES {
        set_up(place, children, machine, &url).await?;
    }
    for machine in MACHINES {
        running.push(start_machine(place, children, machine).await?);
    }
    announce(context, place, &url)?;
    Ok(running)
}

/// The server, at the port it had before if that is free.
async fn start_server(place: &Place, children: &Children<'_>) -> Result<(Child, String)> {
    let port_file = place.own("port");
    let mut port: u16 = fs::read_to_string(&port_file)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    let data = place.server();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let half_way = tokio::time::Instant::now() + PATIENCE / 4;
    loop {
        let listen = format!("127.0.0.1:{port}");
        let arguments = [
            "server".as_ref(),
            "--data".as_ref(),
            data.as_os_str(),
            "--listen".as_ref(),
            listen.as_ref(),
        ];
        let mut child = children.start("server", None, &arguments)?;
        if let Some(line) = child.first_line().await
            && let Some(url) = line
                .strip_prefix("listening on ")
                .and_then(|rest| rest.split(", data in ").next())
        {
            let now: u16 = url
                .rsplit(':')
                .next()
                .and_then(|port| port.parse().ok())
                .unwrap_or(port);
            if now != port {
                fs::write(&port_file, now.to_string()).map_err(Failure::file(
                    Code::Write,
                    "write",
                    &port_file,
                ))?;
            }
            return Ok((child, url.to_owned()));
        }
        // The server of a demonstration that was killed takes a moment to notice. A port that stays taken is given up.
        child.ended_busy(deadline).await?;
        if tokio::time::Instant::now() > half_way {
            port = 0;
        }
    }
}

/// What a person would type on a new machine, as far as it was not done before.
async fn set_up(place: &Place, children: &Children<'_>, machine: &str, url: &str) -> Result {
    let home = place.home(machine);
    let password = place.password();
    let password = ["--password-file".as_ref(), password.as_os_str()];
    if home.slot()?.is_none() {
        if machine == MACHINES[0] {
            let code = place.own("recovery-code");
            // Of a key that was never kept.
            let _ = fs::remove_file(&code);
            let arguments = [
                "init".as_ref(),
                password[0],
                password[1],
                "--recovery-file".as_ref(),
                code.as_os_str(),
            ];
            children.run(machine, Some(&home), &arguments, None).await?;
        } else {
            let export_password = ["--export-password-file".as_ref(), password[1]];
            let export = [
                "export-key".as_ref(),
                password[0],
                password[1],
                export_password[0],
                export_password[1],
            ];
            let export = children
                .run(MACHINES[0], Some(&place.home(MACHINES[0])), &export, None)
                .await?;
            let import = [
                "import-key".as_ref(),
                password[0],
                password[1],
                export_password[0],
                export_password[1],
            ];
            children
                .run(machine, Some(&home), &import, Some(export))
                .await?;
        }
    }
    let registered = home.credentials()?.is_some_and(|here| here.token.is_some());
    if !registered || home.config()?.server.as_deref() != Some(url) {
        let data = place.server();
        let invite = [
            "server".as_ref(),
            "invite".as_ref(),
            "--data".as_ref(),
            data.as_os_str(),
        ];
        let invitation = children.run("server", None, &invite, None).await?;
        let folder = place.folder(machine);
        let register = [
            "register".as_ref(),
            "--server".as_ref(),
            url.as_ref(),
            "--token".as_ref(),
            invitation.trim().as_ref(),
            "--name".as_ref(),
            machine.as_ref(),
            "--folder".as_ref(),
            folder.as_os_str(),
        ];
        children.run(machine, Some(&home), &register, None).await?;
    }
    Ok(())
}

/// A machine that watches its folder; there when it has made its first pass.
async fn start_machine(place: &Place, children: &Children<'_>, machine: &str) -> Result<Child> {
    let home = place.home(machine);
    let password = place.password();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let sync = [
            "sync".as_ref(),
            "--password-file".as_ref(),
            password.as_os_str(),
        ];
        let mut child = children.start(machine, Some(&home), &sync)?;
        loop {
            if child.has_ended()? {
                child.ended_busy(deadline).await?;
                break;
            }
            if is_up(children, machine, &home).await {
                return Ok(child);
            }
            if tokio::time::Instant::now() > deadline {
                return Err(child.too_slow());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn is_up(children: &Children<'_>, machine: &str, home: &Home) -> bool {
    let status = children
        .run(
            machine,
            Some(home),
            &["status".as_ref(), "--json".as_ref()],
            None,
        )
        .await;
    let status = status
        .ok()
        .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    status.is_some_and(|status| {
        status["running"] == true
            && ["idle", "conflict"]
                .iter()
                .any(|state| status["state"] == *state)
            && !status["last_sync"].is_null()
    })
}

fn announce(context: &Context, place: &Place, url: &str) -> Result {
    #[derive(Serialize)]
    struct Answer<'a> {
        url: &'a str,
        server: PathBuf,
        laptop: PathBuf,
        desktop: PathBuf,
        password: PathBuf,
    }
    let [laptop, desktop] = MACHINES.map(|machine| place.folder(machine));
    let answer = Answer {
        url,
        server: place.server(),
        laptop,
        desktop,
        password: place.password(),
    };
    context.output.result(&answer, || {
        let (laptop, desktop) = (answer.laptop.display(), answer.desktop.display());
        format!(
            "SyncAgent is running: a server that can read nothing, and two machines that keep a folder the same.\n\n\
             \x20 laptop    {laptop}\n\
             \x20 desktop   {desktop}\n\
             \x20 server    {url}, which has no more than this: {}\n\
             \x20 password  {}\n\n\
             Put a file into one folder and open it in the other:\n\n\
             \x20 echo hello > '{laptop}/hello.txt'\n\
             \x20 cat '{desktop}/hello.txt'\n\n\
             Ctrl-C ends it. The same command goes on where it ended.\n",
            answer.server.display(),
            answer.password.display(),
        )
    })
}

/// The name of the first child that ends although nobody told it to.
async fn first_to_end(running: &mut [Child]) -> String {
    let ends = running.iter_mut().map(|child| Box::pin(child.ends()));
    futures_util::future::select_all(ends).await.0
}
