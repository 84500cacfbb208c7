//! Files out of chunks: from what the disk already holds first, from the server otherwise.
//!
//! Every chunk is checked against its manifest when it is opened, and every file as a whole against its
//! content hash before it may be placed. What comes out is staged: complete, but not yet visible.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use syncagent_protocol::crash::{Point, point};
use syncagent_protocol::{ChunkId, Code, ContentHash, NodeId, TreePath};
use syncagent_sync::scan::Fingerprint;
use syncagent_vault::VaultError;
use syncagent_vault::chunk::{
    Entry, Scope, max_list_len, max_sealed_len, open_data, open_leaves, open_list,
};
use syncagent_vault::chunker::most_chunks;
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
pub const FETCH_LEN: u64 = 4 * 1024 * 1024;
/// Chunks asked for in one request.
pub const FETCH_COUNT: usize = 1024;
/// Lists asked for in one request: 10 MB of the longest.
const LIST_COUNT: usize = 256;
/// What the shortest chunk costs to carry, in bytes.
const MIN_LEN: u64 = 4096;
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
    /// A chunk is damaged, missing, refused, or not what the manifest says.
    #[error("{0}")]
    Chunk(String),
    /// This disk.
    #[error(transparent)]
    Disk(#[from] ApplyError),
    /// The server; this ends the whole batch.
    #[error(transparent)]
    Remote(RemoteError),
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

impl From<RemoteError> for DownloadError {
    fn from(error: RemoteError) -> Self {
        match error {
            // About what was asked, not about who asks: it says nothing of what another file needs.
            RemoteError::Refused {
                code: Code::Limit | Code::Usage,
                message,
            } => Self::Chunk(format!(
                "the server does not give what is asked for it: {message}"
            )),
            error => Self::Remote(error),
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

fn too_many() -> DownloadError {
    DownloadError::Chunk(
        "it claims to be cut into more chunks than a file of its size can be".into(),
    )
}

/// Fetches chunks in the order of `wanted`, each only once. Beside each stands how long it can be in bytes: of one that
/// is longer nothing is kept, and what comes instead opens with no key.
pub async fn fetch_each(
    remote: &dyn Remote,
    wanted: impl IntoIterator<Item = (ChunkId, usize)>,
) -> Result<Vec<Option<Bytes>>, RemoteError> {
    let (mut ids, mut most) = (Vec::new(), Vec::new());
    let mut first: HashMap<ChunkId, usize> = HashMap::new();
    let mut places = Vec::new();
    for (id, len) in wanted {
        let place = *first.entry(id).or_insert_with(|| {
            ids.push(id);
            most.push(0);
            ids.len() - 1
        });
        most[place] = len.max(most[place]);
        places.push(place);
    }
    let mut blobs: Vec<Option<Bytes>> = Vec::with_capacity(ids.len());
    if !ids.is_empty() {
        let mut came = remote.fetch(ids);
        while let Some(blob) = came.try_next().await? {
            let most = most.get(blobs.len()).copied().unwrap_or(0);
            blobs.push(blob.map(|blob| match blob.len() <= most {
                true => Bytes::from(blob),
                false => Bytes::new(),
            }));
        }
    }
    let blob = |place| blobs.get(place).cloned().flatten();
    Ok(places.into_iter().map(blob).collect())
}

/// What to ask for to have a data chunk.
fn data(entry: &Entry) -> (ChunkId, usize) {
    (entry.id, max_sealed_len(entry.len))
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

/// A chunk; none where the server has none; or why it does not give it.
type Fetched = Result<Option<Bytes>, String>;
type Outcome = (NodeId, Result<Done, DownloadError>);

impl Downloader {
    /// Stages a batch of files. Memory does not depend on their sizes.
    pub async fn stage(&self, jobs: Vec<Job>) -> Result<Vec<Outcome>, RemoteError> {
        let jobs: Vec<Arc<Job>> = jobs.into_iter().map(Arc::new).collect();
        let mut ready = HashSet::new();
        let mut outcomes = self.stage_all(&jobs, &mut ready).await?;
        let is_full = |(_, result): &Outcome| match result {
            Ok(_) => false,
            Err(error) => error.code() == Code::DiskFull,
        };
        let full: HashSet<NodeId> = { outcomes.iter().filter(|outcome| is_full(outcome)) }
            .map(|(node, _)| *node)
            .collect();
        if full.is_empty() {
            return Ok(outcomes);
        }
        // What was broken off, and may never come to its end, does not stand in the way of what can.
        let in_use: HashSet<NodeId> = { outcomes.iter() }
            .filter(|outcome| outcome.1.is_ok() || is_full(outcome))
            .map(|(node, _)| *node)
            .collect();
        let keep: HashSet<String> = { jobs.iter() }
            .filter(|job| in_use.contains(&job.node))
            .map(|job| data_key(&job.file.hash))
            .collect();
        let folder = Arc::clone(&self.folder);
        let gone = { self.work }
            .run(move || folder.give_way(&|key| keep.contains(key)))
            .await;
        if gone.is_ok_and(|gone| gone > 0) {
            let again: Vec<Arc<Job>> = { jobs.into_iter() }
                .filter(|job| full.contains(&job.node))
                .collect();
            outcomes.retain(|outcome| !is_full(outcome));
            outcomes.extend(self.stage_all(&again, &mut ready).await?);
        }
        Ok(outcomes)
    }

    /// `ready`: of what hashes a file is complete, which stands under the name of its hash if it is a long one.
    async fn stage_all(
        &self,
        jobs: &[Arc<Job>],
        ready: &mut HashSet<ContentHash>,
    ) -> Result<Vec<Outcome>, RemoteError> {
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
                small.push(Arc::clone(job));
                continue;
            }
            // Another file that claims the same hash does not touch it.
            let may_resume = job.file.size >= RESUME_LEN && !ready.contains(&job.file.hash);
            match self.stage_large(job, may_resume).await {
                Err(DownloadError::Remote(error)) => return Err(error),
                result => {
                    if result.is_ok() {
                        ready.insert(job.file.hash);
                    }
                    outcomes.push((job.node, result));
                }
            }
        }
        outcomes.extend(self.stage_small(small).await?);
        Ok(outcomes)
    }

    /// Files of one chunk or none: fetched many to a request, written in parallel.
    async fn stage_small(&self, jobs: Vec<Arc<Job>>) -> Result<Vec<Outcome>, RemoteError> {
        let mut groups: Vec<Vec<Arc<Job>>> = Vec::new();
        let mut len = FETCH_LEN;
        for job in jobs {
            let size = job.file.size.max(MIN_LEN);
            if len + size > FETCH_LEN
                || groups.last().is_none_or(|group| group.len() >= FETCH_COUNT)
            {
                groups.push(Vec::new());
                len = 0;
            }
            len += size;
            if let Some(group) = groups.last_mut() {
                group.push(job);
            }
        }
        let fetched = stream::iter(groups).map(|group| async move {
            let wanted: Vec<_> = { group.iter() }
                .filter_map(|job| single_chunk(job))
                .map(data)
                .collect();
            let mut blobs = self.fetch_apart(&wanted).await?;
            blobs.reverse();
            let this = self.clone();
            let outcomes = self.work.run(move || {
                let pairs: Vec<_> = group
                    .into_iter()
                    .map(|job| {
                        let blob = single_chunk(&job).and_then(|_| blobs.pop());
                        (job, blob)
                    })
                    .collect();
                this.work.map(pairs, |(job, blob)| {
                    (job.node, this.write_small(&job, blob))
                })
            });
            Ok::<_, RemoteError>(outcomes.await)
        });
        let batches: Vec<Vec<Outcome>> = fetched.buffered(FETCHES_IN_FLIGHT).try_collect().await?;
        Ok(batches.into_iter().flatten().collect())
    }

    /// Chunks of different files: one that the server refuses takes none of the others along.
    async fn fetch_apart(&self, wanted: &[(ChunkId, usize)]) -> Result<Vec<Fetched>, RemoteError> {
        match fetch_each(&*self.remote, wanted.iter().copied()).await {
            Ok(blobs) => Ok(blobs.into_iter().map(Ok).collect()),
            Err(error) => {
                let mut refused = match DownloadError::from(error) {
                    DownloadError::Remote(error) => return Err(error),
                    error => vec![Err(error.to_string())],
                };
                if wanted.len() > 1 {
                    refused.clear();
                    for one in wanted {
                        let apart = Box::pin(self.fetch_apart(std::slice::from_ref(one)));
                        refused.extend(apart.await?);
                    }
                }
                Ok(refused)
            }
        }
    }

    fn write_small(&self, job: &Job, blob: Option<Fetched>) -> Result<Done, DownloadError> {
        let blob = blob.transpose().map_err(DownloadError::Chunk)?;
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

    async fn stage_large(&self, job: &Job, may_resume: bool) -> Result<Done, DownloadError> {
        let from_op = matches!(&job.file.content, Content::Chunks(manifest) if manifest.level == 0);
        let leaves = self.leaves(job).await?;
        let size = job.file.size;
        let staging = match may_resume {
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
        let mut sources = job.sources.clone();
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
    async fn leaves(&self, job: &Job) -> Result<Vec<Entry>, DownloadError> {
        let Content::Chunks(manifest) = &job.file.content else {
            return Ok(Vec::new());
        };
        let most = most_chunks(job.file.size);
        let duplicates = |entries: &[Entry]| entries.iter().map(Entry::duplicate).collect();
        let mut parts: Vec<Below> = match manifest.level {
            0 => vec![Below::Data(duplicates(&manifest.entries))],
            _ => { manifest.entries.iter() }
                .map(|entry| match job.lists.get(&entry.id) {
                    Some(leaves) => Below::Data(duplicates(leaves)),
                    None => Below::List(entry.duplicate()),
                })
                .collect(),
        };
        for level in (0..manifest.level).rev() {
            let lists = self.lists(&parts, job.scope, level, most).await?;
            if lists.is_empty() {
                break;
            }
            let mut below = Vec::new();
            let mut count = 0;
            for part in parts {
                let entry = match part {
                    Below::List(entry) => entry,
                    Below::Data(leaves) => {
                        count += leaves.len();
                        below.push(Below::Data(leaves));
                        continue;
                    }
                };
                let (first, entries) = lists.get(&entry.id).ok_or_else(missing)?;
                // Of one list only one key and one length are true.
                if first.len != entry.len || first.key.expose() != entry.key.expose() {
                    return Err(VaultError::Chunk.into());
                }
                // Before it is laid out: what is named again and again costs its author nothing.
                count += entries.len();
                if count > most {
                    return Err(too_many());
                }
                match level {
                    0 => below.push(Below::Data(duplicates(entries))),
                    _ => below.extend(entries.iter().map(Entry::duplicate).map(Below::List)),
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

    /// Each list of one level, by its id: how it was named first, and what is in it, with `level` levels of lists below.
    async fn lists(
        &self,
        parts: &[Below],
        scope: Scope,
        level: u8,
        most: usize,
    ) -> Result<HashMap<ChunkId, (Entry, Vec<Entry>)>, DownloadError> {
        let mut seen = HashSet::new();
        let wanted: Vec<&Entry> = { parts.iter() }
            .filter_map(|part| match part {
                Below::List(entry) if seen.insert(entry.id) => Some(entry),
                _ => None,
            })
            .collect();
        let mut lists = HashMap::with_capacity(wanted.len());
        let mut count = 0;
        for request in wanted.chunks(LIST_COUNT) {
            let ids = request.iter().map(|entry| (entry.id, max_list_len()));
            let blobs = fetch_each(&*self.remote, ids).await?;
            for (entry, blob) in request.iter().zip(blobs) {
                let blob = blob.ok_or_else(missing)?;
                let entries = match level {
                    0 => open_leaves(&self.keys, scope, entry, &blob)?,
                    _ => open_list(&self.keys, scope, entry, &blob)?,
                };
                count += entries.len();
                if count > most {
                    return Err(too_many());
                }
                lists.insert(entry.id, (entry.duplicate(), entries));
            }
        }
        Ok(lists)
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
            let own = parts.entries[i].len.max(MIN_LEN);
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
        let wanted = request.iter().map(|&i| data(&parts.entries[i]));
        let blobs = fetch_each(&*self.remote, wanted).await?;
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
