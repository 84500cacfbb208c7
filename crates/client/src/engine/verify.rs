//! Reads chunks from the server as a download does, and says which files a bad one touches.
//!
//! Nothing is written. Every version that this machine knows the body of counts, those in the trash too: they are what
//! `restore` would need.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use syncagent_protocol::{ChunkId, NodeId};
use syncagent_vault::chunk::{
    Entry, Scope, max_list_len, max_sealed_len, open_data, open_leaves, open_list,
};
use syncagent_vault::op::{Content, Put, PutBody};
use syncagent_vault::random;

use super::{Engine, Preview};
use crate::error::ClientError;
use crate::transfer::download::{FETCH_COUNT, FETCH_LEN, FETCHES_IN_FLIGHT, fetch_each};

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Chunks that the known versions are made of.
    pub chunks: u64,
    /// Those that were read.
    pub read: u64,
    /// Bytes of content in them.
    pub bytes: u64,
    /// Those that are damaged, missing or not what their manifest says.
    pub bad: Vec<BadChunk>,
}

/// A chunk that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadChunk {
    /// Which.
    pub chunk: ChunkId,
    /// Why.
    pub why: String,
    /// What cannot be put together without it.
    pub files: Vec<TouchedFile>,
}

/// A version of a file that needs a bad chunk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TouchedFile {
    /// Where it is, or was.
    pub path: String,
    /// Position of the version.
    pub version: u64,
    /// Whether it is what the vault holds now; otherwise an old version, or in the trash.
    pub current: bool,
}

/// A chunk and who needs it.
struct Wanted {
    entry: Entry,
    scope: Scope,
    /// Levels of lists from here to the data.
    level: u8,
    /// Versions, by their place in the list of owners.
    owners: BTreeSet<usize>,
}

/// What a chunk turned out to be.
enum Opened {
    Data(u64),
    List(Vec<Entry>),
    Bad(String),
}

impl Preview {
    /// Reads every chunk, or `sample` ones chosen at random (lists, which lead to the data, come on top). `told` hears
    /// how many bytes of how many were read.
    pub async fn verify(
        &mut self,
        sample: Option<usize>,
        told: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<Verified, ClientError> {
        self.pull().await?;
        let engine = &self.engine;
        let mut owners = Vec::new();
        let mut data: HashMap<(ChunkId, Scope), Wanted> = HashMap::new();
        let mut lists: Vec<HashMap<(ChunkId, Scope), Wanted>> = Vec::new();
        for (node, n, bytes) in engine.index.puts()? {
            let Ok(put) = Put::parse(&bytes, node) else {
                continue;
            };
            let scope = put.scope(node);
            let PutBody::File(file) = put.body else {
                continue;
            };
            let Content::Chunks(manifest) = file.content else {
                continue;
            };
            owners.push((node, n));
            let owner = BTreeSet::from([owners.len() - 1]);
            for entry in manifest.entries {
                let wanted = Wanted {
                    entry,
                    scope,
                    level: manifest.level,
                    owners: owner.clone(),
                };
                add(&mut lists, &mut data, wanted);
            }
        }
        let mut verified = Verified::default();
        let mut bad: Vec<(ChunkId, String, BTreeSet<usize>)> = Vec::new();
        // From the top down, so that a list which several files share is read once.
        for level in (1..=lists.len()).rev() {
            let wanted: Vec<Wanted> = std::mem::take(&mut lists[level - 1])
                .into_values()
                .collect();
            verified.chunks += wanted.len() as u64;
            let mut below = Vec::new();
            engine
                .read_chunks(wanted, &mut |wanted, opened| {
                    verified.read += 1;
                    match opened {
                        Opened::List(entries) => below.push((wanted, entries)),
                        Opened::Data(_) => {}
                        Opened::Bad(why) => bad.push((wanted.entry.id, why, wanted.owners)),
                    }
                })
                .await?;
            for (above, entries) in below {
                for entry in entries {
                    let wanted = Wanted {
                        entry,
                        scope: above.scope,
                        level: above.level - 1,
                        owners: above.owners.clone(),
                    };
                    add(&mut lists, &mut data, wanted);
                }
            }
        }
        verified.chunks += data.len() as u64;
        let mut wanted: Vec<Wanted> = data.into_values().collect();
        if let Some(sample) = sample {
            choose(&mut wanted, sample, &*engine.random);
        }
        let total = wanted.iter().map(|wanted| wanted.entry.len).sum();
        engine
            .read_chunks(wanted, &mut |wanted, opened| {
                verified.read += 1;
                match opened {
                    Opened::Data(len) => {
                        verified.bytes += len;
                        told(verified.bytes, total);
                    }
                    Opened::List(_) => {}
                    Opened::Bad(why) => bad.push((wanted.entry.id, why, wanted.owners)),
                }
            })
            .await?;
        for (chunk, why, touched) in bad {
            let mut files: Vec<TouchedFile> = touched
                .into_iter()
                .map(|owner| engine.touched(owners[owner]))
                .collect();
            files.sort();
            verified.bad.push(BadChunk { chunk, why, files });
        }
        verified.bad.sort_by(|a, b| a.files.cmp(&b.files));
        Ok(verified)
    }
}

impl Engine {
    pub(super) fn touched(&self, (node, n): (NodeId, u64)) -> TouchedFile {
        let last = self.log.get(node).map(|entry| entry.n);
        let placed = self.placed.tree.path_of(node);
        let version = || {
            self.index
                .versions(node)
                .ok()?
                .into_iter()
                .find(|version| version.n == n)
        };
        let path = match &placed {
            Some(path) => path.as_str().to_owned(),
            None => version().map_or_else(
                || node.to_string(),
                |version| self.trashed_path(node, &version),
            ),
        };
        TouchedFile {
            path,
            version: n,
            current: last == Some(n) && placed.is_some(),
        }
    }

    /// Reads chunks and opens them, many at a time.
    async fn read_chunks(
        &self,
        wanted: Vec<Wanted>,
        each: &mut (dyn FnMut(Wanted, Opened) + Send),
    ) -> Result<(), ClientError> {
        let mut requests: Vec<Vec<Wanted>> = Vec::new();
        let mut len = FETCH_LEN;
        for wanted in wanted {
            // A list is short, however much lies below it.
            let own = if wanted.level == 0 {
                wanted.entry.len
            } else {
                0
            };
            if len + own > FETCH_LEN
                || requests
                    .last()
                    .is_none_or(|request| request.len() >= FETCH_COUNT)
            {
                requests.push(Vec::new());
                len = 0;
            }
            len += own;
            if let Some(request) = requests.last_mut() {
                request.push(wanted);
            }
        }
        let mut answers = stream::iter(requests)
            .map(|request| async move {
                let ids = request.iter().map(|wanted| {
                    let most = match wanted.level {
                        0 => max_sealed_len(wanted.entry.len),
                        _ => max_list_len(),
                    };
                    (wanted.entry.id, most)
                });
                let blobs = fetch_each(&*self.remote, ids).await?;
                let (keys, work) = (Arc::clone(&self.keys), self.work);
                let opened = work
                    .run(move || {
                        let pairs: Vec<_> = request.into_iter().zip(blobs).collect();
                        work.map(pairs, |(wanted, blob)| {
                            let opened = match blob {
                                None => Opened::Bad("the server does not have it".to_owned()),
                                Some(blob) => open(&keys, &wanted, &blob),
                            };
                            (wanted, opened)
                        })
                    })
                    .await;
                Ok::<_, ClientError>(opened)
            })
            .buffer_unordered(FETCHES_IN_FLIGHT);
        while let Some(batch) = answers.try_next().await? {
            for (wanted, opened) in batch {
                each(wanted, opened);
            }
        }
        Ok(())
    }
}

fn open(keys: &syncagent_vault::keys::Keys, wanted: &Wanted, blob: &[u8]) -> Opened {
    let opened = match wanted.level {
        0 => open_data(keys, wanted.scope, &wanted.entry, blob)
            .map(|content| Opened::Data(content.len() as u64)),
        1 => open_leaves(keys, wanted.scope, &wanted.entry, blob).map(Opened::List),
        _ => open_list(keys, wanted.scope, &wanted.entry, blob).map(Opened::List),
    };
    opened.unwrap_or_else(|error| Opened::Bad(error.to_string()))
}

fn add(
    lists: &mut Vec<HashMap<(ChunkId, Scope), Wanted>>,
    data: &mut HashMap<(ChunkId, Scope), Wanted>,
    wanted: Wanted,
) {
    let level = usize::from(wanted.level);
    if lists.len() < level {
        lists.resize_with(level, HashMap::new);
    }
    let of_level = match level {
        0 => data,
        level => &mut lists[level - 1],
    };
    match of_level.entry((wanted.entry.id, wanted.scope)) {
        std::collections::hash_map::Entry::Occupied(mut known) => {
            known.get_mut().owners.extend(wanted.owners);
        }
        std::collections::hash_map::Entry::Vacant(place) => drop(place.insert(wanted)),
    }
}

/// Keeps `n` of them, chosen at random.
fn choose(wanted: &mut Vec<Wanted>, n: usize, random: &dyn random::Random) {
    for i in 0..n.min(wanted.len()) {
        let left = (wanted.len() - i) as u64;
        // The remainder favours small numbers by less than one in a billion, which does not matter for a sample.
        let drawn = u64::from_be_bytes(random::bytes(random)) % left;
        wanted.swap(i, i + usize::try_from(drawn).unwrap_or(0));
    }
    wanted.truncate(n);
}
