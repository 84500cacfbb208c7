//! Key slots: kept for machines, unreadable here. Which slot counts is in the sealed log, so two are kept.

use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Deserialize;
use syncagent_protocol::Code;
use syncagent_protocol::api::{OCTETS, SLOT_LEN};

use super::auth::Member;
use super::body;
use super::problem::{Failure, Result};
use crate::app::App;

fn kind(text: &str) -> Result<u8> {
    match text {
        "1" => Ok(1),
        "2" => Ok(2),
        _ => Err(Failure::not_found(
            "slots are of type 1 (password) or 2 (recovery)",
        )),
    }
}

/// Which of the two slots of a type is asked for.
#[derive(Deserialize)]
pub(crate) struct Which {
    which: Option<String>,
}

pub(crate) async fn get(
    State(app): State<App>,
    member: Member,
    Path((_, text)): Path<(String, String)>,
    Query(Which { which }): Query<Which>,
) -> Result<Response> {
    member.founded()?;
    let slot = app.0.catalog.slot(member.vault(), kind(&text)?).await?;
    let slot = match which.as_deref() {
        None | Some("current") => slot.map(|slot| slot.current),
        Some("previous") => slot.and_then(|slot| slot.previous),
        Some(_) => return Err(Failure::usage("which=current or which=previous")),
    };
    let slot = slot.ok_or_else(|| Failure::not_found("no such slot"))?;
    Ok(([(header::CONTENT_TYPE, OCTETS)], slot).into_response())
}

pub(crate) async fn put(
    State(app): State<App>,
    member: Member,
    Path((_, text)): Path<(String, String)>,
    request: Request,
) -> Result<StatusCode> {
    member.founded()?;
    let kind = kind(&text)?;
    let slot = body::whole(request, SLOT_LEN).await?;
    let fits = slot.len() == SLOT_LEN
        && slot.starts_with(b"SAKS")
        && slot[4..6] == [1, kind]
        && slot[36..52] == member.vid.0;
    if !fits {
        let detail = "not a slot of this type and vault";
        return Err(Failure::new(StatusCode::BAD_REQUEST, Code::Keyslot, detail));
    }
    app.0
        .catalog
        .put_slot(member.vault(), kind, slot, app.now_ms())
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
