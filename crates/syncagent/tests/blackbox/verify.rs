//! `verify`: what the server lost or damaged is found, and the files are named.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::world::World;

/// Bytes that do not compress, and another row for each seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}

fn packs(world: &World) -> BTreeSet<PathBuf> {
    let dirs = fs::read_dir(world.path("server/packs")).unwrap();
    let dirs = dirs
        .map(|dir| dir.unwrap().path())
        .filter(|dir| !dir.ends_with("incoming"));
    dirs.flat_map(|dir| fs::read_dir(dir).unwrap().map(|pack| pack.unwrap().path()))
        .collect()
}

fn touched(answer: &Value) -> BTreeSet<(String, bool)> {
    let bad = answer["bad"].as_array().unwrap().iter();
    let files = bad.flat_map(|bad| bad["files"].as_array().unwrap());
    files
        .map(|file| {
            let path = file["path"].as_str().unwrap().to_owned();
            (path, file["current"].as_bool().unwrap())
        })
        .collect()
}

#[test]
fn what_is_damaged_on_the_server_is_found_and_its_files_are_named() {
    let mut world = World::new();
    let a = world.first("a");
    let verify = ["verify", "--json", "--password-file", "password"];
    // In packs of their own, one pass each.
    let mut last = packs(&world);
    let mut pack_of = |name: &str, content: Vec<u8>| {
        fs::create_dir_all(a.folder.join("dir")).unwrap();
        fs::write(a.folder.join(name), content).unwrap();
        a.sync_once().exits(0);
        let now = packs(&world);
        let new: Vec<PathBuf> = now.difference(&last).cloned().collect();
        last = now;
        new
    };
    pack_of("dir/whole", noise(1, 300_000));
    let hit = pack_of("dir/hit", noise(2, 300_000));
    let old = pack_of("dir/again", noise(3, 300_000));
    pack_of("dir/again", noise(4, 300_000));
    // So long that its op names lists of chunks: the sum of all is known.
    pack_of("dir/long", noise(5, 40_000_000));
    let fine = a.run(&verify).exits(0).json();
    assert_eq!(fine["bad"], Value::Array(Vec::new()));
    assert_eq!(
        (&fine["read"], &fine["bytes"]),
        (&fine["chunks"], &41_200_000.into())
    );
    let some = a
        .run(&[&verify[..], &["--sample", "3"]].concat())
        .exits(0)
        .json();
    let lists = fine["read"].as_u64().unwrap() - some["chunks"].as_u64().unwrap();
    assert!(
        lists == 0 && some["read"].as_u64() < fine["read"].as_u64(),
        "{some}"
    );

    // One bit in one pack, and another pack is cut off.
    let address = world.address();
    world.stop_server();
    let mut bytes = fs::read(&hit[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&hit[0], bytes).unwrap();
    fs::File::options()
        .write(true)
        .open(&old[0])
        .unwrap()
        .set_len(100)
        .unwrap();
    world.start_server(&address);
    let run = a.run(&verify).exits(1);
    let answer = run.json();
    assert_eq!(
        touched(&answer),
        BTreeSet::from([
            ("dir/hit".to_owned(), true),
            ("dir/again".to_owned(), false)
        ]),
        "{answer}"
    );
    assert!(run.stderr.contains("E_CHUNK: dir/hit: "), "{}", run.stderr);
    assert_eq!(answer["exit"], 1);
    // A machine that needs it names the file, and gets all others.
    let b = world.next("b", &a);
    let pass = b.sync_once().exits(1);
    assert!(
        pass.stderr.contains("E_CHUNK: dir/hit: "),
        "{}",
        pass.stderr
    );
    for name in ["dir/whole", "dir/again", "dir/long"] {
        let same = fs::read(b.folder.join(name)).unwrap() == fs::read(a.folder.join(name)).unwrap();
        assert!(same, "{name}");
    }
    assert!(!b.folder.join("dir/hit").exists());
    // It only looked.
    a.sync_once().exits(0);
    assert_eq!(
        fs::read(a.folder.join("dir/hit")).unwrap(),
        noise(2, 300_000)
    );
}
