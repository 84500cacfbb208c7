//! Two machines on a real disk, one server in memory: what is done on one appears on the other.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use http::{Method, Request, Response};
use syncagent_client::daemon::{self, Options};
use syncagent_client::engine::{Hint, State, Status};
use syncagent_client::folder::disk::NativeDisk;
use syncagent_client::remote::RemoteError;
use syncagent_client::remote::http::{Body, Transport};
use syncagent_client::work::Work;
use syncagent_protocol::Code;
use syncagent_protocol::api::Event;
use syncagent_sync::schedule::Config;
use syncagent_testkit::transport::{Chunks, RouterTransport};
use syncagent_testkit::world::{Machine, World};
use syncagent_vault::op::Genesis;

/// Everything in a folder: path to kind, content and exec bit.
fn tree(root: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, dir: &Path, out: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            if name == ".syncagent" {
                continue;
            }
            let meta = fs::symlink_metadata(&path).unwrap();
            let what = if meta.is_symlink() {
                format!("link to {}", fs::read_link(&path).unwrap().display())
            } else if meta.is_dir() {
                walk(root, &path, out);
                "directory".to_owned()
            } else {
                let content = fs::read(&path).unwrap();
                format!(
                    "{} bytes, {}",
                    content.len(),
                    String::from_utf8_lossy(&content[..content.len().min(40)])
                )
            };
            out.insert(name, what);
        }
    }
    let mut out = BTreeMap::new();
    walk(root, root, &mut out);
    out
}

async fn settle(world: &World, machines: &mut [Machine]) {
    for _ in 0..3 {
        for machine in machines.iter_mut() {
            let outcome = world.sync(machine).await.unwrap();
            assert_eq!(outcome.errors, [], "{}", machine.name);
        }
    }
}

async fn two(world: &World, dir: &Path) -> Vec<Machine> {
    vec![
        world.machine(dir, "laptop").await.unwrap(),
        world.machine(dir, "desktop").await.unwrap(),
    ]
}

#[tokio::test]
async fn files_directories_links_edits_moves_and_deletions_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(Genesis::default());
    let mut machines = two(&world, dir.path()).await;
    let (a, b) = (machines[0].folder.clone(), machines[1].folder.clone());
    fs::create_dir_all(a.join("docs/deep/empty")).unwrap();
    fs::write(a.join("docs/hello.txt"), "hello").unwrap();
    fs::write(a.join("docs/zero"), "").unwrap();
    fs::write(a.join("big"), "0123456789abcdef".repeat(200_000)).unwrap();
    std::os::unix::fs::symlink("hello.txt", a.join("docs/link")).unwrap();
    settle(&world, &mut machines).await;
    assert_eq!(tree(&a).len(), 7);
    assert_eq!(tree(&b), tree(&a));

    fs::write(b.join("docs/hello.txt"), "hello again").unwrap();
    fs::rename(a.join("docs/deep"), a.join("deeper")).unwrap();
    fs::remove_file(b.join("docs/zero")).unwrap();
    fs::rename(b.join("big"), b.join("docs/big")).unwrap();
    settle(&world, &mut machines).await;
    assert_eq!(tree(&b), tree(&a));
    let names: Vec<String> = tree(&a).into_keys().collect();
    assert_eq!(
        names,
        [
            "deeper",
            "deeper/empty",
            "docs",
            "docs/big",
            "docs/hello.txt",
            "docs/link"
        ]
    );
    assert_eq!(fs::read(a.join("docs/hello.txt")).unwrap(), b"hello again");
}

#[tokio::test]
async fn both_edits_of_one_file_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(Genesis::default());
    let mut machines = two(&world, dir.path()).await;
    let (a, b) = (machines[0].folder.clone(), machines[1].folder.clone());
    fs::write(a.join("note.txt"), "one").unwrap();
    settle(&world, &mut machines).await;
    fs::write(a.join("note.txt"), "from the laptop").unwrap();
    fs::write(b.join("note.txt"), "from the desktop").unwrap();
    settle(&world, &mut machines).await;
    assert_eq!(tree(&b), tree(&a));
    let all = tree(&a);
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all["note.txt"].ends_with("from the laptop"));
    let copy = all
        .keys()
        .find(|name| name.starts_with("note.conflict-"))
        .unwrap();
    assert!(
        copy.ends_with("-desktop.txt") && all[copy].ends_with("from the desktop"),
        "{all:?}"
    );
}

#[tokio::test]
async fn a_lost_index_deletes_nothing_and_sends_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(Genesis::default());
    let mut machines = two(&world, dir.path()).await;
    let a = machines[0].folder.clone();
    fs::create_dir(a.join("d")).unwrap();
    fs::write(a.join("d/one"), "1".repeat(100_000)).unwrap();
    fs::write(a.join("two"), "2").unwrap();
    settle(&world, &mut machines).await;
    let before = tree(&a);
    machines[0].engine = None;
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let _ = fs::remove_file(machines[0].home.state_path().with_file_name(name));
    }
    let outcome = world.sync(&mut machines[0]).await.unwrap();
    assert_eq!(
        (
            outcome.sent,
            outcome.bytes_sent,
            outcome.removed,
            outcome.fetched
        ),
        (0, 0, 0, 0)
    );
    settle(&world, &mut machines).await;
    assert_eq!(tree(&a), before);
    assert_eq!(tree(&machines[1].folder), before);
}

/// A server that shows one commit at a time, as it does where they are large.
struct SmallPages(RouterTransport);

impl Transport for SmallPages {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>, RemoteError>> {
        let is_page = request.method() == Method::GET && request.uri().path().ends_with("/commits");
        async move {
            let response = self.0.send(request).await?;
            if !is_page {
                return Ok(response);
            }
            let (head, body) = response.into_parts();
            let page: Vec<Bytes> = body.try_collect().await?;
            let mut page = page.concat();
            if let Some(len) = page.first_chunk() {
                page.truncate(4 + u32::from_be_bytes(*len) as usize);
            }
            let page = futures_util::stream::once(async { Ok(Bytes::from(page)) });
            Ok(Response::from_parts(head, page.boxed()))
        }
        .boxed()
    }

    fn events(&self, token: &str) -> BoxFuture<'_, Result<BoxStream<'static, Event>, RemoteError>> {
        self.0.events(token)
    }
}

#[tokio::test]
async fn an_index_built_anew_knows_its_own_commits_on_every_page() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(Genesis::default());
    let mut machines = two(&world, dir.path()).await;
    let folder = machines[0].folder.clone();
    for n in 0..4 {
        fs::write(folder.join(format!("{n}")), "written by this machine").unwrap();
        world.sync(&mut machines[0]).await.unwrap();
    }
    machines[0].engine = None;
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let _ = fs::remove_file(machines[0].home.state_path().with_file_name(name));
    }
    let disk = Arc::new(NativeDisk::open(&folder).unwrap());
    let pages = SmallPages(RouterTransport::new(world.app().router()));
    { world.start_with(&mut machines[0], disk, Arc::new(pages), Work::Pool) }.unwrap();
    world.sync(&mut machines[0]).await.unwrap();
    let status = machines[0].engine.as_ref().unwrap().status();
    assert_eq!(status.notices, Vec::<String>::new());
    assert!(status.head.unwrap().n > 4);
}

#[tokio::test]
async fn a_copy_where_a_new_file_once_was_is_a_file_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(Genesis::default());
    let mut machines = two(&world, dir.path()).await;
    let (a, b) = (machines[0].folder.clone(), machines[1].folder.clone());
    fs::create_dir(a.join("dir")).unwrap();
    fs::write(a.join("dir/old"), "old").unwrap();
    settle(&world, &mut machines).await;
    // A new file in a directory that the other machine has renamed: it goes there before it is sent.
    fs::rename(b.join("dir"), b.join("dir2")).unwrap();
    world.sync(&mut machines[1]).await.unwrap();
    fs::write(a.join("dir/new"), "new").unwrap();
    settle(&world, &mut machines).await;
    assert_eq!(fs::read(b.join("dir2/new")).unwrap(), b"new");
    // Its old path is free, and whatever comes to stand there is a person's.
    fs::create_dir(a.join("dir")).unwrap();
    fs::copy(a.join("dir2/new"), a.join("dir/new")).unwrap();
    settle(&world, &mut machines).await;
    assert_eq!(fs::read(a.join("dir/new")).unwrap(), b"new");
    assert_eq!(fs::read(b.join("dir/new")).unwrap(), b"new");
}

#[tokio::test]
async fn a_vault_with_dedup_sends_one_copy_of_equal_content() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(Genesis {
        dedup_vault: true,
        ..Genesis::default()
    });
    let mut machines = two(&world, dir.path()).await;
    let (a, b) = (machines[0].folder.clone(), machines[1].folder.clone());
    let content: Vec<u8> = (0..500_000u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    fs::write(a.join("one"), &content).unwrap();
    settle(&world, &mut machines).await;
    fs::write(a.join("two"), &content).unwrap();
    fs::write(a.join("short"), "short").unwrap();
    let outcome = world.sync(&mut machines[0]).await.unwrap();
    assert_eq!((outcome.sent, outcome.bytes_sent), (2, 0));
    settle(&world, &mut machines).await;
    assert_eq!(tree(&b), tree(&a));
    assert!(fs::read(b.join("two")).unwrap() == content);
}

#[tokio::test]
async fn no_chunk_is_sent_or_fetched_twice() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(Genesis::default());
    let mut machines = two(&world, dir.path()).await;
    let paths = [0, 1].map(|i| machines[i].folder.join("long"));
    // Some five hundred chunks, in about four lists.
    let mut content = vec![0; 64 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    fs::write(&paths[0], &content).unwrap();
    settle(&world, &mut machines).await;
    // In place, at the front and at the end, by the one that sent it and the one that fetched it.
    for (from, at) in [(0, 40 << 20), (1, 3 << 20), (0, 60 << 20)] {
        content[at] ^= 1;
        let file = fs::File::options().write(true).open(&paths[from]);
        file.unwrap()
            .write_all_at(&content[at..=at], at as u64)
            .unwrap();
        settle(&world, &mut machines).await;
    }
    content.splice(0..0, *b"more");
    fs::write(&paths[0], &content).unwrap();
    settle(&world, &mut machines).await;
    assert!(fs::read(&paths[1]).unwrap() == content);
    for machine in &machines {
        let Chunks { sent, fetched } = machine.carried();
        assert!(!sent.is_empty() && !fetched.is_empty());
        for (what, mut ids) in [("sent", sent), ("fetched", fetched)] {
            let all = ids.len();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(
                all - ids.len(),
                0,
                "{} of {all}, {what} again",
                machine.name
            );
        }
    }
}

#[tokio::test]
async fn a_mass_change_waits_for_a_yes_and_deletes_nothing_until_then() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(Genesis::default());
    let mut machines = two(&world, dir.path()).await;
    let (a, b) = (machines[0].folder.clone(), machines[1].folder.clone());
    fs::create_dir(a.join("photos")).unwrap();
    for i in 0..120 {
        fs::write(a.join(format!("photos/{i}")), format!("picture {i}")).unwrap();
    }
    settle(&world, &mut machines).await;
    fs::remove_dir_all(a.join("photos")).unwrap();
    let held = world.sync(&mut machines[0]).await.unwrap_err();
    assert_eq!(held.code(), syncagent_protocol::Code::Brake, "{held}");
    world.sync(&mut machines[1]).await.unwrap();
    assert_eq!(tree(&b).len(), 121);
    machines[0].engine.as_mut().unwrap().allow_mass_change();
    world.sync(&mut machines[0]).await.unwrap();
    // What was right for one machine may be a surprise for the next: each asks.
    let held = world.sync(&mut machines[1]).await.unwrap_err();
    assert_eq!(
        (held.code(), tree(&b).len()),
        (syncagent_protocol::Code::Brake, 121)
    );
    machines[1].engine.as_mut().unwrap().allow_mass_change();
    settle(&world, &mut machines).await;
    assert_eq!(tree(&b).len(), 0);
}

#[tokio::test]
async fn a_directory_takes_the_place_of_a_file_that_is_edited_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(Genesis::default());
    let mut machines = two(&world, dir.path()).await;
    let (a, b) = (machines[0].folder.clone(), machines[1].folder.clone());
    fs::write(a.join("plan"), "one").unwrap();
    settle(&world, &mut machines).await;
    fs::write(a.join("plan"), "from the laptop").unwrap();
    fs::remove_file(b.join("plan")).unwrap();
    fs::create_dir(b.join("plan")).unwrap();
    fs::write(b.join("plan/inside"), "from the desktop").unwrap();
    settle(&world, &mut machines).await;
    assert_eq!(tree(&b), tree(&a));
    let all = tree(&a);
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all["plan"].ends_with("from the laptop"));
    let (_, inside) = all
        .iter()
        .find(|(path, _)| path.ends_with("/inside"))
        .unwrap();
    assert!(inside.ends_with("from the desktop"));
}

#[tokio::test]
async fn machines_that_post_at_the_same_time_both_get_their_say() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(Genesis::default());
    let mut machines = two(&world, dir.path()).await;
    settle(&world, &mut machines).await;
    for round in 0..20 {
        for machine in &machines {
            fs::write(
                machine.folder.join(format!("{round} of {}", machine.name)),
                &machine.name,
            )
            .unwrap();
        }
        let [one, two] = &mut machines[..] else {
            panic!("two machines")
        };
        let (one, two) = tokio::join!(world.sync(one), world.sync(two));
        assert_eq!(
            (one.unwrap().conflicts.len(), two.unwrap().conflicts.len()),
            (0, 0)
        );
    }
    settle(&world, &mut machines).await;
    assert_eq!(tree(&machines[0].folder).len(), 40);
    assert_eq!(tree(&machines[1].folder), tree(&machines[0].folder));
}

#[tokio::test]
async fn a_folder_without_its_identity_holds_everything() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(Genesis::default());
    let mut machines = two(&world, dir.path()).await;
    let (a, b) = (machines[0].folder.clone(), machines[1].folder.clone());
    fs::write(a.join("kept"), "kept").unwrap();
    settle(&world, &mut machines).await;
    // As an unmounted drive looks: the directory is there, what was in it is not.
    let away = dir.path().join("away");
    fs::rename(&a, &away).unwrap();
    fs::create_dir(&a).unwrap();
    for restarted in [false, true] {
        if restarted {
            machines[0].engine = None;
        }
        let error = world.sync(&mut machines[0]).await.unwrap_err();
        assert_eq!(error.code(), syncagent_protocol::Code::Root, "{error}");
    }
    world.sync(&mut machines[1]).await.unwrap();
    assert_eq!(fs::read(b.join("kept")).unwrap(), b"kept");
    fs::remove_dir(&a).unwrap();
    fs::rename(&away, &a).unwrap();
    machines[0].engine = None;
    settle(&world, &mut machines).await;
    assert_eq!(tree(&a), tree(&b));
}

#[tokio::test]
async fn nobody_says_in_sync_before_the_first_look() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(Genesis::default());
    let mut machine = world.machine(dir.path(), "laptop").await.unwrap();
    fs::write(machine.folder.join("new"), "not sent yet").unwrap();
    world.start(&mut machine).unwrap();
    let engine = machine.engine.as_mut().unwrap();
    assert_eq!(engine.status().state, State::Syncing);
    engine.pass(Hint::Everything).await.unwrap();
    assert_eq!(engine.status().state, State::Idle);
    assert_eq!(engine.status().files, 1);
}

#[tokio::test]
async fn nobody_says_in_sync_of_what_changed_during_the_pass() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(Genesis::default());
    let mut machine = world.machine(dir.path(), "laptop").await.unwrap();
    world.start(&mut machine).unwrap();
    let engine = machine.engine.as_mut().unwrap();
    for (was_heard, state) in [(true, State::Syncing), (false, State::Idle)] {
        engine.listen_to(Box::new(move || was_heard));
        engine.pass(Hint::Everything).await.unwrap();
        assert_eq!(engine.status().state, state);
    }
}

#[tokio::test]
async fn nobody_says_in_sync_while_a_change_waits() {
    const HOUR_MS: u64 = 3_600_000;
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(Genesis::default());
    let mut machine = world.machine(dir.path(), "laptop").await.unwrap();
    world.start(&mut machine).unwrap();
    let engine = machine.engine.take().unwrap();
    let mut status = engine.watch();
    let options = Options {
        folder: machine.folder.clone(),
        home: None,
        schedule: Config {
            closed_ms: HOUR_MS,
            quiet_ms: HOUR_MS,
            settle_ms: HOUR_MS,
            ..Config::default()
        },
        paused: false,
        before_key: None,
    };
    let said = async {
        let first = |status: &Status| status.state == State::Idle && status.last_sync.is_some();
        status.wait_for(first).await.unwrap();
        fs::write(machine.folder.join("new"), "waits for quiet").unwrap();
        status
            .wait_for(|status| status.state == State::Syncing)
            .await
            .unwrap();
    };
    let said = tokio::time::timeout(std::time::Duration::from_secs(60), said);
    let run = daemon::run(engine, options, async { said.await.unwrap() });
    run.await.unwrap();
}

#[tokio::test]
async fn a_pause_makes_no_failure_good() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(Genesis::default());
    let mut machine = world.machine(dir.path(), "laptop").await.unwrap();
    world.start(&mut machine).unwrap();
    let engine = machine.engine.as_mut().unwrap();
    engine.show_resumed();
    assert_eq!(engine.status().state, State::Syncing);
    fs::remove_file(machine.folder.join(".syncagent/root")).unwrap();
    engine.pass(Hint::Everything).await.unwrap_err();
    let held = engine.status();
    assert_eq!(held.state, State::Held);
    engine.show_paused();
    assert_eq!(engine.status().state, State::Paused);
    engine.show_resumed();
    assert_eq!(engine.status(), held);
}

/// Goes away as soon as something has a name on this disk.
struct UntilSeen {
    inner: RouterTransport,
    path: PathBuf,
}

impl Transport for UntilSeen {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>, RemoteError>> {
        if self.path.exists() {
            let gone = RemoteError::Offline("cut by the test".to_owned());
            return std::future::ready(Err(gone)).boxed();
        }
        self.inner.send(request)
    }

    fn events(&self, token: &str) -> BoxFuture<'_, Result<BoxStream<'static, Event>, RemoteError>> {
        self.inner.events(token)
    }
}

/// More than is staged at once, so that the pass is over between fetching it and putting it into its place.
#[tokio::test]
async fn what_was_fetched_under_a_free_name_and_got_no_further_is_no_rename() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(Genesis::default());
    let mut machines = two(&world, dir.path()).await;
    let (a, b) = (machines[0].folder.clone(), machines[1].folder.clone());
    fs::write(a.join("large"), "old").unwrap();
    fs::write(a.join("other"), "older").unwrap();
    settle(&world, &mut machines).await;
    // What is written within the clock's grain of a look is known by its content alone, also by the look that comes then.
    let written = SystemTime::now();
    while written
        .elapsed()
        .is_ok_and(|since| since <= Duration::from_millis(40))
    {
        std::thread::yield_now();
    }
    settle(&world, &mut machines).await;
    // Away, and not removed: its number would be that of the next new file.
    fs::rename(a.join("other"), dir.path().join("other")).unwrap();
    fs::rename(a.join("large"), a.join("other")).unwrap();
    let large = fs::File::create(a.join("large")).unwrap();
    large.set_len(65 * 1024 * 1024).unwrap();
    drop(large);
    fs::write(a.join("z"), "another one".repeat(10_000)).unwrap();
    world.sync(&mut machines[0]).await.unwrap();

    machines[1].engine = None;
    let path = b.join("large.moving");
    let inner = RouterTransport::new(world.app().router());
    let disk = NativeDisk::open(&b).unwrap();
    let transport = Arc::new(UntilSeen { inner, path });
    world
        .start_with(&mut machines[1], Arc::new(disk), transport, Work::Pool)
        .unwrap();
    let cut = world.sync(&mut machines[1]).await.unwrap_err();
    assert_eq!(cut.code(), Code::Offline);
    assert!(b.join("large.moving").exists());
    machines[1].engine = None;
    settle(&world, &mut machines).await;
    let names: Vec<String> = tree(&a).into_keys().collect();
    assert_eq!(names, ["large", "other", "z"]);
    assert_eq!(tree(&b), tree(&a));
}

#[tokio::test]
async fn a_file_that_moves_and_gets_another_time_is_no_conflict_with_its_successor() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(Genesis::default());
    let mut machines = two(&world, dir.path()).await;
    let (a, b) = (machines[0].folder.clone(), machines[1].folder.clone());
    fs::write(a.join("old"), "a text").unwrap();
    settle(&world, &mut machines).await;
    fs::rename(a.join("old"), a.join("aside")).unwrap();
    let moved = fs::File::options().write(true).open(a.join("aside"));
    moved.unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    fs::write(a.join("old"), "another text").unwrap();
    settle(&world, &mut machines).await;
    let names: Vec<String> = tree(&a).into_keys().collect();
    assert_eq!(names, ["aside", "old"]);
    assert_eq!(tree(&b), tree(&a));
    let time = |at: &Path| fs::metadata(at.join("aside")).unwrap().modified().unwrap();
    assert_eq!(time(&b), SystemTime::UNIX_EPOCH);
}

#[tokio::test]
async fn a_rename_back_to_where_the_vault_once_moved_it_is_a_rename() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(Genesis::default());
    let mut machines = two(&world, dir.path()).await;
    let (a, b) = (machines[0].folder.clone(), machines[1].folder.clone());
    fs::create_dir(a.join("dir")).unwrap();
    fs::write(a.join("one"), "a text").unwrap();
    settle(&world, &mut machines).await;
    for there in ["two", "dir/two"] {
        fs::rename(a.join("one"), a.join(there)).unwrap();
        settle(&world, &mut machines).await;
        for (from, to) in [(there, "three"), ("three", there), (there, "one")] {
            fs::rename(b.join(from), b.join(to)).unwrap();
            settle(&world, &mut machines).await;
            assert!(b.join(to).exists(), "{from} to {to} on the same machine");
            assert!(a.join(to).exists(), "{from} to {to} on the other one");
        }
    }
}
