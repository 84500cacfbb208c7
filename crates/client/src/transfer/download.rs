//! Files out of chunks: from what the disk already holds first, from the server otherwise.
//!
//! Every chunk is checked against its manifest when it is opened, and every file as a whole against its
//! content hash before it may be placed. What comes out is staged: complete, but not yet visible.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use syncagent_protocol::crash::{Point, point};
use syncagent_protocol::{ChunkId, Code, ContentHash, NodeId, TreePath};
use syncagent_sync::scan::Fingerprint;
use syncagent_vault::VaultError;
use syncagent_vault::chunk::{Entry, Scope, open_data, open_list};
use syncagent_vault::keys::Keys;
use syncagent_vault::op::{Content, File};

use super::assemble::{self, Assembly, Lost, OpenSource, Origin, Parts};
use crate::folder::apply::{ApplyError, Folder, Staged};
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

/// The data chunks below list chunks.
pub type Lists = HashMap<ChunkId, Vec<Entry>>;

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
    /// The data chunks below lists that its op holds, as far as they are known from before.
    pub lists: Lists,
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

/// What is below one entry of a manifest.
enum Below {
    /// A list that has to be read.
    List(Entry),
    /// Data chunks.
    Data(Vec<Entry>),
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
        point(Point::ContentWritten);
        Ok(Done {
            staged: staging.finish(job.exec, job.mtime_ns)?,
            leaves: None,
        })
    }

    async fn stage_large(&self, mut job: Job) -> Result<Done, DownloadError> {
        let from_op = matches!(&job.file.content, Content::Chunks(manifest) if manifest.level == 0);
        let leaves = self.leaves(&mut job).await?;
        let size = job.file.size;
        let staging = match size >= RESUME_LEN {
            // The hash names the content, not the place: an interrupted download serves whatever wants it next.
            true => self
                .folder
                .stage_resumable(&data_key(&job.file.hash), Some(size))?,
            false => self.folder.stage(Some(size))?,
        };
        let parts = Arc::new(Parts::new(leaves));
        let (this, for_disk, scope) = (self.clone(), Arc::clone(&parts), job.scope);
        let (mut here, staging) = self
            .work
            .run(move || {
                let here = for_disk.left_in(&staging, &this.keys, scope)?;
                Ok::<_, DownloadError>((here, staging))
            })
            .await?;
        let mut assembly = Assembly::new(staging);
        let mut sources = std::mem::take(&mut job.sources);
        let (exec, mtime_ns, hash) = (job.exec, job.mtime_ns, job.file.hash);
        let staged = loop {
            // A source that cannot be read any more is no source; the server has everything.
            let open: Arc<Vec<OpenSource>> = Arc::new(self.open(&mut sources));
            let plan = Arc::new(assemble::plan(&parts, &here, &open));
            let (built, lost) = self.build(assembly, &parts, &plan, &open, scope).await?;
            assembly = built;
            if let Some(Lost(k)) = lost {
                sources.remove(k);
                continue;
            }
            let end = self
                .work
                .run(move || {
                    let (mut staging, found) = assembly.end()?;
                    if found == hash {
                        return Ok(Ok(staging.finish(exec, mtime_ns)?));
                    }
                    // Nothing of it may be taken up again.
                    staging.set_len(0)?;
                    Ok::<_, DownloadError>(Err(staging))
                })
                .await?;
            match end {
                Ok(staged) => break staged,
                // A source was changed while it was read, or is not what it is taken for: all of it from the server.
                Err(staging) if !sources.is_empty() || here.contains(&true) => {
                    sources.clear();
                    here.fill(false);
                    assembly = Assembly::new(staging);
                }
                Err(_) => return Err(not_sealed()),
            }
        };
        let leaves = match Arc::into_inner(parts) {
            Some(parts) if !from_op => Some(parts.entries),
            _ => None,
        };
        Ok(Done { staged, leaves })
    }

    /// Opens the sources, and drops those that are not what they were.
    fn open(&self, sources: &mut Vec<Source>) -> Vec<OpenSource> {
        let mut open = Vec::new();
        sources.retain(|source| {
            let disk = &**self.folder.disk();
            let read = open_stable(disk, &source.path, Some(source.fingerprint));
            let Ok(read) = read else { return false };
            open.push(OpenSource {
                read,
                leaves: source.leaves.clone(),
            });
            true
        });
        open
    }

    /// The data chunks of a file: from its op, from what is known of its lists, or through those on the server.
    async fn leaves(&self, job: &mut Job) -> Result<Vec<Entry>, DownloadError> {
        let Content::Chunks(manifest) = &job.file.content else {
            return Ok(Vec::new());
        };
        let lists = std::mem::take(&mut job.lists);
        let duplicates = |entries: &[Entry]| entries.iter().map(Entry::duplicate).collect();
        let mut parts: Vec<Below> = match manifest.level {
            0 => vec![Below::Data(duplicates(&manifest.entries))],
            _ => { manifest.entries.iter() }
                .map(|entry| match lists.get(&entry.id) {
                    Some(leaves) => Below::Data(duplicates(leaves)),
                    None => Below::List(entry.duplicate()),
                })
                .collect(),
        };
        for level in (0..manifest.level).rev() {
            let ids = parts.iter().filter_map(|part| match part {
                Below::List(entry) => Some(entry.id),
                Below::Data(_) => None,
            });
            let ids: Vec<ChunkId> = ids.collect();
            if ids.is_empty() {
                break;
            }
            let mut blobs = self.remote.fetch(ids);
            let mut below = Vec::new();
            for part in parts {
                let Below::List(entry) = part else {
                    below.push(part);
                    continue;
                };
                let blob = blobs.try_next().await?.flatten().ok_or_else(missing)?;
                let entries = open_list(&self.keys, job.scope, &entry, &blob)?;
                match level {
                    0 => below.push(Below::Data(entries)),
                    _ => below.extend(entries.into_iter().map(Below::List)),
                }
            }
            parts = below;
        }
        let entries: Vec<Entry> = { parts.into_iter() }
            .flat_map(|part| match part {
                Below::List(entry) => vec![entry],
                Below::Data(entries) => entries,
            })
            .collect();
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

    /// Goes on with `assembly` to its end, or to a part whose source is lost.
    async fn build(
        &self,
        mut assembly: Assembly,
        parts: &Arc<Parts>,
        plan: &Arc<Vec<Origin>>,
        sources: &Arc<Vec<OpenSource>>,
        scope: Scope,
    ) -> Result<(Assembly, Option<Lost>), DownloadError> {
        let mut requests: Vec<Vec<usize>> = Vec::new();
        let mut len = FETCH_LEN;
        for i in (assembly.next..plan.len()).filter(|&i| plan[i] == Origin::Server) {
            let entry = &parts.entries[i];
            if len + entry.len > FETCH_LEN || requests.is_empty() {
                requests.push(Vec::new());
                len = 0;
            }
            len += entry.len;
            if let Some(request) = requests.last_mut() {
                request.push(i);
            }
        }
        let (fetched, mut arriving) = tokio::sync::mpsc::channel(1);
        let fetch = async move {
            let mut opened = stream::iter(requests)
                .map(|request| self.fetch_parts(Arc::clone(parts), request, scope))
                .buffered(FETCHES_IN_FLIGHT);
            while let Some(result) = opened.next().await {
                let failed = result.is_err();
                if fetched.send(result).await.is_err() || failed {
                    break;
                }
            }
        };
        let put = async move {
            let mut came = VecDeque::new();
            while let Some(from) = plan.get(assembly.next) {
                if *from == Origin::Server {
                    if came.is_empty() {
                        // The other end is only gone after an error that was taken already.
                        came = arriving.recv().await.ok_or_else(missing)??;
                    }
                    let mut contents: Vec<Vec<u8>> = Vec::new();
                    while contents.is_empty()
                        || plan.get(assembly.next + contents.len()) == Some(&Origin::Server)
                    {
                        let Some(content) = came.pop_front() else {
                            break;
                        };
                        contents.push(content);
                    }
                    let put = self.work.run(move || {
                        for content in &contents {
                            assembly.put(content)?;
                        }
                        Ok::<_, DownloadError>(assembly)
                    });
                    assembly = put.await?;
                    continue;
                }
                let start = assembly.next;
                let mut len = 0;
                let end = (start..plan.len()).find(|&i| {
                    len += parts.entries[i].len;
                    plan[i] == Origin::Server || (len > FETCH_LEN && i > start)
                });
                let range = start..end.unwrap_or(plan.len());
                let (parts, plan) = (Arc::clone(parts), Arc::clone(plan));
                let sources = Arc::clone(sources);
                let take = self.work.run(move || {
                    let lost = assembly.take(&parts, &plan, &sources, range)?;
                    Ok::<_, DownloadError>((assembly, lost))
                });
                let (went_on, lost) = take.await?;
                assembly = went_on;
                if lost.is_some() {
                    return Ok((assembly, lost));
                }
            }
            Ok((assembly, None))
        };
        futures_util::future::join(fetch, put).await.1
    }

    /// Fetches these parts and opens them, in order.
    async fn fetch_parts(
        &self,
        parts: Arc<Parts>,
        request: Vec<usize>,
        scope: Scope,
    ) -> Result<VecDeque<Vec<u8>>, DownloadError> {
        let ids = request.iter().map(|&i| parts.entries[i].id).collect();
        let blobs: Vec<Option<Vec<u8>>> = self.remote.fetch(ids).try_collect().await?;
        let (keys, work) = (Arc::clone(&self.keys), self.work);
        self.work
            .run(move || {
                let pairs: Vec<_> = request.into_iter().zip(blobs).collect();
                let opened = work.map(pairs, |(i, blob)| {
                    let blob = blob.ok_or_else(missing)?;
                    Ok(open_data(&keys, scope, &parts.entries[i], &blob)?)
                });
                opened.into_iter().collect()
            })
            .await
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
        false => Err(not_sealed()),
    }
}

fn not_sealed() -> DownloadError {
    DownloadError::Chunk("its content is not what its author sealed".into())
}

fn data_key(hash: &ContentHash) -> String {
    hash.to_string()
}
