//! The log: what extends the head is appended, everything else is refused with the head.

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::{StatusCode, header};
use serde::Deserialize;
use syncagent_protocol::api::{AFTER_HEADER, HEAD_HEADER, Head, MAX_COMMIT_PAGE_LEN, OCTETS};
use syncagent_protocol::commit::{Commit, HEADER_LEN, Header, MAX_COMMIT_LEN, MAX_OPS, OpKind};
use syncagent_protocol::crash::{Point, point};
use syncagent_protocol::pack::push_framed;
use syncagent_protocol::{Code, CommitHash, MachineId, VaultId};

use super::auth::Member;
use super::body::Pieces;
use super::problem::{Failure, Result};
use crate::app::App;
use crate::catalog::{Appended, CatalogError, NewCommit, Tip, VaultKey};
use crate::hub::Note;
use crate::limits::{PIECE_LEN, Turn};

fn head_of(tip: Option<&Tip>, vid: VaultId) -> Head {
    tip.map_or(
        Head {
            n: 0,
            hash: CommitHash::genesis(vid),
        },
        |tip| Head {
            n: tip.n,
            hash: tip.hash,
        },
    )
}

pub(crate) async fn head(State(app): State<App>, member: Member) -> Result<Json<Head>> {
    let tip = app.0.catalog.tip(member.vault()).await?;
    Ok(Json(head_of(tip.as_ref(), member.vid)))
}

/// How a commit is posted.
#[derive(Deserialize)]
pub(crate) struct How {
    /// In served form, as one that this server had and lost.
    #[serde(default)]
    lost: u8,
}

pub(crate) async fn post(
    State(app): State<App>,
    member: Member,
    how: std::result::Result<Query<How>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Result<Json<Head>> {
    let Query(How { lost }) = how.map_err(|error| Failure::usage(error.body_text()))?;
    let lost = lost != 0;
    let most = match lost {
        true => MAX_COMMIT_LEN + MAX_OPS,
        false => MAX_COMMIT_LEN,
    };
    let mut pieces = Pieces::new(request, most)?;
    let mut bytes = Vec::new();
    pieces.fill(&mut bytes, HEADER_LEN).await?;
    let header_bytes = bytes
        .first_chunk::<HEADER_LEN>()
        .ok_or(syncagent_protocol::commit::FormatError::Truncated)?;
    let header = Header::parse(header_bytes)?;
    if header.vault != member.vid {
        return Err(Failure::other_vault());
    }
    let tip = app.0.catalog.tip(member.vault()).await?;
    let is_head = tip
        .as_ref()
        .is_some_and(|tip| tip.n == header.n && &tip.header == header_bytes);
    let head = head_of(tip.as_ref(), member.vid);
    if !is_head && (header.n != head.n + 1 || header.prev != head.hash) {
        return Err(Failure::stale(head));
    }
    // Twice: the body as it came and the form in which it is kept.
    let len = pieces.announced().unwrap_or(MAX_COMMIT_LEN);
    let _room = app
        .0
        .limits
        .room(2 * len)
        .await
        .ok_or_else(Failure::crowded)?;
    bytes.reserve_exact(pieces.announced().unwrap_or(0).saturating_sub(bytes.len()));
    pieces.fill(&mut bytes, usize::MAX).await?;

    let now_ms = app.now_ms();
    let poster = member.session.machine;
    // Hashing up to 16 MiB and a signature: not for the threads that serve everybody else.
    let judged = app
        .0
        .work
        .run(move || judge(&bytes, lost, poster, now_ms))
        .await?;
    let commit = judged?;
    if is_head {
        let again = app
            .0
            .catalog
            .commits(member.vault(), head.n - 1, commit.served.len())
            .await?;
        let same = again
            .commits
            .first()
            .is_some_and(|(_, served)| *served == commit.served);
        return if same {
            Ok(Json(head))
        } else {
            Err(Failure::stale(head))
        };
    }
    let (app_, vault) = (app.clone(), member.vault());
    // Whether or not the poster still listens: what was appended is told.
    let appended = app
        .0
        .work
        .see_through(async move { append(&app_, vault, commit).await })
        .await??;
    match appended {
        Ok(head) => Ok(Json(head)),
        Err(Appended::Stale(head)) => {
            let beginning = Head {
                n: 0,
                hash: CommitHash::genesis(member.vid),
            };
            Err(Failure::stale(head.unwrap_or(beginning)))
        }
        Err(Appended::NotRestored) => Err(Failure::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            Code::Missing,
            "the vault is not marked as restored from a backup",
        )),
        Err(Appended::OtherVault) => Err(Failure::other_vault()),
        Err(Appended::PosterRevoked) => Err(Failure::revoked()),
        Err(Appended::UnknownAuthor) => Err(Failure::new(
            StatusCode::FORBIDDEN,
            Code::Machine,
            format!("{} is no machine of this vault", header.machine()),
        )),
        Err(Appended::Missing(ids)) => Err(Failure::missing(ids)),
        Err(Appended::TooManyChunks) => {
            Err(Failure::too_long("the commit reaches too many chunks"))
        }
        Err(Appended::Done) => Err(Failure::server(&"an append was done and refused")),
    }
}

/// Every check that needs neither a key nor the catalog.
fn judge(bytes: &[u8], lost: bool, poster: MachineId, now_ms: u64) -> Result<NewCommit> {
    let commit = match lost {
        true => Commit::parse_served(bytes)?,
        false => Commit::parse(bytes)?,
    };
    commit.verify()?;
    let revoked = commit
        .ops
        .iter()
        .filter(|op| op.head.kind == OpKind::MachineRevoke);
    Ok(NewCommit {
        vid: commit.header.vault,
        n: commit.header.n,
        prev: commit.header.prev,
        hash: commit.hash(),
        author: commit.header.machine(),
        poster,
        header: *commit.header_bytes,
        served: commit.to_served(),
        refs: commit
            .ops
            .iter()
            .flat_map(syncagent_protocol::commit::Op::refs)
            .collect(),
        revokes: revoked.map(|op| MachineId(op.head.node.0)).collect(),
        enrols: { commit.ops.iter() }.any(|op| op.head.kind == OpKind::MachineAdd),
        lost,
        now_ms,
    })
}

async fn append(
    app: &App,
    vault: VaultKey,
    commit: NewCommit,
) -> std::result::Result<std::result::Result<Head, Appended>, CatalogError> {
    let head = Head {
        n: commit.n,
        hash: commit.hash,
    };
    let revokes = commit.revokes.clone();
    let outcome = app.0.catalog.append(vault, commit).await?;
    if outcome != Appended::Done {
        return Ok(Err(outcome));
    }
    point(Point::CommitAppended);
    app.0.hub.tell(vault, Note::Head(head.n));
    point(Point::CommitTold);
    for machine in revokes {
        tracing::info!(%machine, n = head.n, "a commit removed a machine");
        app.0.hub.tell(vault, Note::Revoked(machine));
    }
    Ok(Ok(head))
}

/// Which commits are asked for.
#[derive(Deserialize)]
pub(crate) struct After {
    #[serde(default)]
    after: u64,
}

pub(crate) async fn read(
    State(app): State<App>,
    member: Member,
    after: std::result::Result<Query<After>, axum::extract::rejection::QueryRejection>,
) -> Result<Response> {
    let Query(After { after }) = after.map_err(|error| Failure::usage(error.body_text()))?;
    let turn = app.0.limits.download().await.ok_or_else(Failure::crowded)?;
    let tip = app.0.catalog.tip(member.vault()).await?;
    let n = tip.as_ref().map_or(0, |tip| tip.n);
    let known = match tip {
        Some(tip) if tip.n == after => Some(tip.hash),
        _ => app.0.catalog.hash_at(member.vault(), after).await?,
    };
    let page = Page {
        vault: member.vault(),
        after,
        last: n,
        room: MAX_COMMIT_PAGE_LEN,
        begun: false,
        app,
        turn,
    };
    let body = Body::from_stream(stream::try_unfold(page, Page::next));
    let headers = [
        (header::CONTENT_TYPE.as_str(), OCTETS.to_owned()),
        (HEAD_HEADER, n.to_string()),
    ];
    let after = known.map(|hash| [(AFTER_HEADER, hash.to_string())]);
    Ok((headers, after, body).into_response())
}

/// A page that is being sent, a piece at a time.
struct Page {
    app: App,
    vault: VaultKey,
    after: u64,
    last: u64,
    room: usize,
    begun: bool,
    #[expect(dead_code, reason = "held until the page is sent")]
    turn: Turn,
}

impl Page {
    async fn next(mut self) -> std::result::Result<Option<(Bytes, Self)>, CatalogError> {
        if self.after >= self.last {
            return Ok(None);
        }
        let mut found = self
            .app
            .0
            .catalog
            .commits(self.vault, self.after, PIECE_LEN.min(self.room))
            .await?;
        // One long commit: it waits for room in memory, and makes a page of its own if it fits no other.
        let mut _room = None;
        if let Some(len) = found.too_long {
            if self.begun && len > self.room {
                return Ok(None);
            }
            _room = self.app.0.limits.room(2 * len).await;
            if _room.is_none() {
                return Err(CatalogError::Busy);
            }
            found = self
                .app
                .0
                .catalog
                .commits(self.vault, self.after, len)
                .await?;
        }
        let mut piece = Vec::new();
        for (n, served) in &found.commits {
            if *n <= self.last {
                push_framed(&mut piece, served);
                self.after = *n;
            }
        }
        if piece.is_empty() {
            return Ok(None);
        }
        point(Point::CommitsRead);
        self.begun = true;
        self.room = self.room.saturating_sub(piece.len());
        Ok(Some((piece.into(), self)))
    }
}

// A commit in its served form, framed, always fits the length that precedes it.
const _: () = assert!(MAX_COMMIT_LEN + MAX_OPS < u32::MAX as usize);
