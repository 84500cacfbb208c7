//! Machines: who they are, how they say they are, and that one is to be locked out.

use axum::Json;
use axum::extract::{Path, Request, State};
use http::StatusCode;
use syncagent_protocol::MachineId;
use syncagent_protocol::api::{MachineReport, Machines, STATES};

use super::auth::Member;
use super::body;
use super::problem::{Failure, Result};
use crate::app::App;
use crate::catalog::CatalogError;
use crate::hub::Note;

pub(crate) async fn list(State(app): State<App>, member: Member) -> Result<Json<Machines>> {
    let mut machines = app.0.catalog.machines(member.vault()).await?;
    for machine in &mut machines {
        let heard = app.last_seen_ms(member.vault(), machine.id);
        machine.last_seen_ms = machine.last_seen_ms.max(heard);
    }
    Ok(Json(Machines { machines }))
}

pub(crate) async fn remove(
    State(app): State<App>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
) -> Result<StatusCode> {
    let machine: MachineId = id
        .parse()
        .map_err(|_| Failure::usage("the path names no machine"))?;
    let (app_, vault) = (app.clone(), member.vault());
    // Whether or not the asker still listens: a machine that was removed loses its sockets.
    let removed = app.0.work.see_through(async move {
        let removed = app_.0.catalog.revoke(vault, machine, app_.now_ms()).await?;
        if removed {
            app_.0.hub.tell(vault, Note::Revoked(machine));
        }
        Ok::<_, CatalogError>(removed)
    });
    if !removed.await?? {
        return Err(Failure::not_found("no such machine in this vault"));
    }
    tracing::info!(%machine, by = %member.session.machine, "a machine was removed");
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn report(
    State(app): State<App>,
    member: Member,
    request: Request,
) -> Result<StatusCode> {
    let report: MachineReport = body::json(request).await?;
    if !STATES.contains(&report.state.as_str()) {
        return Err(Failure::usage("not one of the nine state words"));
    }
    app.0
        .catalog
        .report(member.vault(), member.session.machine, report, app.now_ms())
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
