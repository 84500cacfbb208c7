//! Files out of chunks: from what the disk already holds first, from the server otherwise.
//!
//! Every chunk is checked against its manifest when it is opened, and every file as a whole against its
//! content hash before it may be placed. What comes out is staged: complete, but not yet visible.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use syncagent_protocol::{ChunkId, Code, ContentHash, NodeId, TreePath};
use syncagent_sync::scan::Fingerprint;
use syncagent_vault::VaultError;
use syncagent_vault::chunk::{Codec, Entry, Scope, open_data, open_list, seal_data};
use syncagent_vault::keys::Keys;
use syncagent_vault::op::{Content, File};

use crate::folder::apply::{ApplyError, Folder, Staged, Staging};
use crate::folder::read::open_stable;
use crate::remote::{Remote, RemoteError};
use crate::work::Work;

/// Requests for chunks on their way at one time.
pub const FETCHES_IN_FLIGHT: usize = 3;
/// Content asked for in one request, in bytes, so far as one chunk is not longer.
const FETCH_LEN: u64 = 4 * 1024 * 1024;
/// Files over this many bytes are taken up again after an interruption.
const RESUME_LEN: u64 = 16 * 1024 * 1024;

/// Content on this disk that may serve as a source: an older version or a copy.
#[derive(Clone)]
pub struct Source {
    /// Where it stands.
    pub path: TreePath,
    /// As scanned; if it has changed since, it is no source.
    pub fingerprint: Fingerprint,
    /// Its data chunks in order. None: it is the wanted content as a whole.
    pub leaves: Option<Arc<Vec<(ChunkId, u64)>>>,
}

/// A file to be put together.
pub struct Job {
    /// The file.
    pub node: NodeId,
    /// What its PUT says.
    pub file: File,
    /// Scope of its chunks.
    pub scope: Scope,
    /// Whether its owner may execute it.
    pub exec: bool,
    /// Nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Its data chunks, if they are known from before and the op holds lists.
    pub leaves: Option<Vec<Entry>>,
    /// What may serve as a source.
    pub sources: Vec<Source>,
}

/// A file ready to be placed.
pub struct Done {
    /// Complete content.
    pub staged: Staged,
    /// Its data chunks, if the op holds lists of them.
    pub leaves: Option<Vec<Entry>>,
}

/// Why one file could not be put together. The others go on.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// A chunk is damaged, missing, or not what the manifest says.
    #[error("{0}")]
    Chunk(String),
    /// This disk.
    #[error(transparent)]
    Disk(#[from] ApplyError),
    /// The server; this ends the whole batch.
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

impl DownloadError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Chunk(_) => Code::Chunk,
            Self::Disk(error) => error.code(),
            Self::Remote(error) => error.code(),
        }
    }
}

impl From<VaultError> for DownloadError {
    fn from(error: VaultError) -> Self {
        Self::Chunk(error.to_string())
    }
}

fn missing() -> DownloadError {
    DownloadError::Chunk(
        "a chunk is not on the server; any machine that still has the file repairs it".into(),
    )
}

/// Puts files together.
#[derive(Clone)]
pub struct Downloader {
    /// Where they go.
    pub folder: Arc<Folder>,
    /// Where chunks come from.
    pub remote: Arc<dyn Remote>,
    /// What opens them.
    pub keys: Arc<Keys>,
    /// Where blocking work runs.
    pub work: Work,
}

type Outcome = (NodeId, Result<Done, DownloadError>);

impl Downloader {
    /// Stages a batch of files. Memory does not depend on their sizes.
    pub async fn stage(&self, jobs: Vec<Job>) -> Result<Vec<Outcome>, RemoteError> {
        let mut outcomes = Vec::with_capacity(jobs.len());
        let mut small = Vec::new();
        for job in jobs {
            let is_small = match &job.file.content {
                Content::Inline(_) => true,
                Content::Chunks(manifest) => {
                    manifest.level == 0 && manifest.entries.len() == 1 && job.sources.is_empty()
                }
            };
            if is_small {
                small.push(job);
                continue;
            }
            let node = job.node;
            match self.stage_large(job).await {
                Err(DownloadError::Remote(error)) => return Err(error),
                result => outcomes.push((node, result)),
            }
        }
        outcomes.extend(self.stage_small(small).await?);
        Ok(outcomes)
    }

    /// Files of one chunk or none: fetched many to a request, written in parallel.
    async fn stage_small(&self, jobs: Vec<Job>) -> Result<Vec<Outcome>, RemoteError> {
        let mut groups: Vec<Vec<Job>> = Vec::new();
        let mut len = FETCH_LEN;
        for job in jobs {
            let size = job.file.size.max(4096);
            if len + size > FETCH_LEN || groups.last().is_none_or(|group| group.len() >= 1024) {
                groups.push(Vec::new());
                len = 0;
            }
            len += size;
            if let Some(group) = groups.last_mut() {
                group.push(job);
            }
        }
        let fetched = stream::iter(groups).map(|group| async move {
            let ids: Vec<ChunkId> = group
                .iter()
                .filter_map(single_chunk)
                .map(|entry| entry.id)
                .collect();
            let mut blobs: Vec<Option<Vec<u8>>> = match ids.is_empty() {
                true => Vec::new(),
                false => self.remote.fetch(ids).try_collect().await?,
            };
            blobs.reverse();
            let this = self.clone();
            let outcomes = self.work.run(move || {
                let pairs: Vec<_> = group
                    .into_iter()
                    .map(|job| {
                        let blob = single_chunk(&job).map(|_| blobs.pop().flatten());
                        (job, blob)
                    })
                    .collect();
                this.work
                    .map(pairs, |(job, blob)| (job.node, this.write_small(job, blob)))
            });
            Ok::<_, RemoteError>(outcomes.await)
        });
        let batches: Vec<Vec<Outcome>> = fetched.buffered(FETCHES_IN_FLIGHT).try_collect().await?;
        Ok(batches.into_iter().flatten().collect())
    }

    fn write_small(&self, job: Job, blob: Option<Option<Vec<u8>>>) -> Result<Done, DownloadError> {
        let content = match (&job.file.content, blob) {
            (Content::Inline(content), _) => content.clone(),
            (Content::Chunks(manifest), Some(Some(blob))) => {
                let entry = manifest.entries.first().ok_or_else(missing)?;
                open_data(&self.keys, job.scope, entry, &blob)?
            }
            _ => return Err(missing()),
        };
        check_hash(
            job.file.hash,
            ContentHash(*blake3::hash(&content).as_bytes()),
        )?;
        let mut staging = self.folder.stage(Some(content.len() as u64))?;
        staging.write(&content)?;
        Ok(Done {
            staged: staging.finish(job.exec, job.mtime_ns)?,
            leaves: None,
        })
    }

    async fn stage_large(&self, mut job: Job) -> Result<Done, DownloadError> {
        let from_op = matches!(&job.file.content, Content::Chunks(manifest) if manifest.level == 0);
        let leaves = self.leaves(&mut job).await?;
        let size = job.file.size;
        let folder = Arc::clone(&self.folder);
        let resumable = size >= RESUME_LEN;
        let staging = match resumable {
            // The hash names the content, not the place: an interrupted download serves whatever wants it next.
            true => folder.stage_resumable(&data_key(&job.file.hash), Some(size))?,
            false => folder.stage(Some(size))?,
        };
        let staging = Arc::new(Mutex::new(staging));
        let this = self.clone();
        let plan = Arc::new(Parts::new(leaves));
        let (plan_for_disk, staging_for_disk) = (Arc::clone(&plan), Arc::clone(&staging));
        let (sources, scope) = (std::mem::take(&mut job.sources), job.scope);
        let present = self
            .work
            .run(move || this.copy_from_disk(&plan_for_disk, &sources, scope, &staging_for_disk))
            .await?;
        self.fill_from_server(&plan, &present, job.scope, &staging)
            .await?;
        let (exec, mtime_ns, hash) = (job.exec, job.mtime_ns, job.file.hash);
        let (staged, plan) = self
            .work
            .run(move || {
                let mut staging = Arc::into_inner(staging)
                    .ok_or_else(missing)?
                    .into_inner()
                    .unwrap_or_else(PoisonError::into_inner);
                staging.set_len(size)?;
                let found = hash_of(&staging)?;
                if found != hash {
                    // Nothing of it may be taken up again.
                    staging.set_len(0)?;
                    check_hash(hash, found)?;
                }
                Ok::<_, DownloadError>((staging.finish(exec, mtime_ns)?, plan))
            })
            .await?;
        let leaves = match Arc::into_inner(plan) {
            Some(parts) if !from_op => Some(parts.entries),
            _ => None,
        };
        Ok(Done { staged, leaves })
    }

    /// The data chunks of a file: from its op, from the index, or through the lists on the server.
    async fn leaves(&self, job: &mut Job) -> Result<Vec<Entry>, DownloadError> {
        if let Some(leaves) = job.leaves.take() {
            return Ok(leaves);
        }
        let Content::Chunks(manifest) = &job.file.content else {
            return Ok(Vec::new());
        };
        let mut entries: Vec<Entry> = manifest.entries.iter().map(Entry::duplicate).collect();
        for _ in 0..manifest.level {
            let ids: Vec<ChunkId> = entries.iter().map(|entry| entry.id).collect();
            let mut blobs = self.remote.fetch(ids);
            let mut below = Vec::new();
            for entry in &entries {
                let blob = blobs.try_next().await?.flatten().ok_or_else(missing)?;
                below.extend(open_list(&self.keys, job.scope, entry, &blob)?);
            }
            entries = below;
        }
        match entries
            .iter()
            .try_fold(0u64, |sum, entry| sum.checked_add(entry.len))
        {
            Some(sum) if sum == job.file.size => Ok(entries),
            _ => Err(DownloadError::Chunk(
                "its list of chunks does not add up to its size".into(),
            )),
        }
    }

    /// Copies what the disk has. Returns which parts are there.
    fn copy_from_disk(
        &self,
        parts: &Parts,
        sources: &[Source],
        scope: Scope,
        staging: &Mutex<Staging>,
    ) -> Result<Vec<bool>, DownloadError> {
        let mut staging = staging.lock().unwrap_or_else(PoisonError::into_inner);
        let mut present = vec![false; parts.entries.len()];
        let mut buf = Vec::new();
        if staging.len() > 0 {
            // Left by an interruption: anything may stand there, so each part is sealed again and compared.
            for (i, entry) in parts.entries.iter().enumerate() {
                buf.resize(usize::try_from(entry.len).unwrap_or(0), 0);
                if read_exact(&staging, &mut buf, parts.offsets[i])? {
                    present[i] = [Codec::Zstd, Codec::Stored].into_iter().any(|codec| {
                        seal_data(&self.keys, scope, &buf, codec)
                            .is_ok_and(|sealed| sealed.entry.id == entry.id)
                    });
                }
            }
        }
        for source in sources {
            // A source that cannot be read any more is no source; the server has everything.
            let Ok(mut read) = open_stable(
                &**self.folder.disk(),
                &source.path,
                Some(source.fingerprint),
            ) else {
                continue;
            };
            match &source.leaves {
                None => {
                    buf.resize(1024 * 1024, 0);
                    let mut at = 0;
                    while let Ok(n @ 1..) = read.read(&mut buf) {
                        staging.write_at(&buf[..n], at)?;
                        at += n as u64;
                    }
                    if at == parts.total && read.finish(i64::MAX).is_ok() {
                        present.fill(true);
                    }
                }
                Some(leaves) => {
                    let mut at = 0;
                    for (id, len) in leaves.iter() {
                        for &i in parts
                            .by_id
                            .get(id)
                            .into_iter()
                            .flatten()
                            .filter(|&&i| parts.entries[i].len == *len)
                        {
                            if present[i] {
                                continue;
                            }
                            buf.resize(usize::try_from(*len).unwrap_or(0), 0);
                            let mut got = 0;
                            while got < buf.len() {
                                match read.read_at(&mut buf[got..], at + got as u64) {
                                    Ok(n @ 1..) => got += n,
                                    _ => break,
                                }
                            }
                            if got == buf.len() {
                                staging.write_at(&buf, parts.offsets[i])?;
                                present[i] = true;
                            }
                        }
                        at += len;
                    }
                }
            }
        }
        Ok(present)
    }

    async fn fill_from_server(
        &self,
        parts: &Arc<Parts>,
        present: &[bool],
        scope: Scope,
        staging: &Arc<Mutex<Staging>>,
    ) -> Result<(), DownloadError> {
        let mut requests: Vec<Vec<usize>> = Vec::new();
        let mut len = FETCH_LEN;
        let mut asked: HashMap<ChunkId, ()> = HashMap::new();
        for (i, entry) in parts.entries.iter().enumerate() {
            // A chunk that stands in several places is fetched once.
            if present[i] || asked.insert(entry.id, ()).is_some() {
                continue;
            }
            if len + entry.len > FETCH_LEN || requests.is_empty() {
                requests.push(Vec::new());
                len = 0;
            }
            len += entry.len;
            if let Some(request) = requests.last_mut() {
                request.push(i);
            }
        }
        let present = Arc::new(present.to_vec());
        let writes = stream::iter(requests).map(|request| {
            let (parts, staging, present) =
                (Arc::clone(parts), Arc::clone(staging), Arc::clone(&present));
            let keys = Arc::clone(&self.keys);
            async move {
                let ids = request.iter().map(|&i| parts.entries[i].id).collect();
                let blobs: Vec<Option<Vec<u8>>> = self.remote.fetch(ids).try_collect().await?;
                let work = self.work;
                work.run(move || {
                    let pairs: Vec<_> = request.into_iter().zip(blobs).collect();
                    let opened = work.map(pairs, |(i, blob)| {
                        let blob = blob.ok_or_else(missing)?;
                        Ok::<_, DownloadError>((
                            i,
                            open_data(&keys, scope, &parts.entries[i], &blob)?,
                        ))
                    });
                    let mut staging = staging.lock().unwrap_or_else(PoisonError::into_inner);
                    for result in opened {
                        let (i, content) = result?;
                        for &j in parts.by_id.get(&parts.entries[i].id).into_iter().flatten() {
                            if !present[j] {
                                staging.write_at(&content, parts.offsets[j])?;
                            }
                        }
                    }
                    Ok::<_, DownloadError>(())
                })
                .await
            }
        });
        writes
            .buffer_unordered(FETCHES_IN_FLIGHT)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }
}

/// A file's data chunks, where they go, and where the same chunk stands several times.
struct Parts {
    entries: Vec<Entry>,
    offsets: Vec<u64>,
    by_id: HashMap<ChunkId, Vec<usize>>,
    total: u64,
}

impl Parts {
    fn new(entries: Vec<Entry>) -> Self {
        let mut offsets = Vec::with_capacity(entries.len());
        let mut by_id: HashMap<ChunkId, Vec<usize>> = HashMap::new();
        let mut total = 0u64;
        for (i, entry) in entries.iter().enumerate() {
            offsets.push(total);
            total = total.saturating_add(entry.len);
            by_id.entry(entry.id).or_default().push(i);
        }
        Self {
            entries,
            offsets,
            by_id,
            total,
        }
    }
}

fn single_chunk(job: &Job) -> Option<&Entry> {
    match &job.file.content {
        Content::Chunks(manifest) => manifest.entries.first(),
        Content::Inline(_) => None,
    }
}

fn check_hash(wanted: ContentHash, found: ContentHash) -> Result<(), DownloadError> {
    match wanted == found {
        true => Ok(()),
        false => Err(DownloadError::Chunk(
            "its content is not what its author sealed".into(),
        )),
    }
}

fn data_key(hash: &ContentHash) -> String {
    hash.to_string()
}

fn read_exact(staging: &Staging, buf: &mut [u8], offset: u64) -> Result<bool, ApplyError> {
    let mut got = 0;
    while got < buf.len() {
        match staging.read_at(&mut buf[got..], offset + got as u64)? {
            0 => return Ok(false),
            n => got += n,
        }
    }
    Ok(true)
}

fn hash_of(staging: &Staging) -> Result<ContentHash, ApplyError> {
    let mut hasher = blake3::Hasher::new();
    let mut buf = vec![0; 1024 * 1024];
    let mut at = 0;
    loop {
        match staging.read_at(&mut buf, at)? {
            0 => return Ok(ContentHash(*hasher.finalize().as_bytes())),
            n => {
                hasher.update(&buf[..n]);
                at += n as u64;
            }
        }
    }
}
