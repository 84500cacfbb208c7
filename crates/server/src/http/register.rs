//! An invitation becomes a machine with a token: once, and only for a key that its bearer holds.

use std::net::{IpAddr, Ipv6Addr};

use axum::Json;
use axum::extract::{Request, State};
use data_encoding::HEXLOWER;
use http::StatusCode;
use syncagent_protocol::api::{
    Head, RegisterRequest, RegisterResponse, is_machine_name, register_message,
};
use syncagent_protocol::invitation::Invitation;
use syncagent_protocol::{Code, CommitHash, MachineId, signature};

use super::auth::token_hash;
use super::body;
use super::problem::{Failure, Result};
use crate::app::App;
use crate::catalog::{Registered, Registration};
use crate::serve::Peer;

const MAX_PLATFORM_LEN: usize = 64;

pub(crate) async fn register(
    State(app): State<App>,
    request: Request,
) -> Result<Json<RegisterResponse>> {
    let address = request
        .extensions()
        .get::<Peer>()
        .map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.0.ip());
    if !app.0.limits.may_register(address, app.now_ms()) {
        return Err(Failure::new(
            StatusCode::TOO_MANY_REQUESTS,
            Code::Busy,
            "too many failed registrations",
        ));
    }
    let result = answer(&app, body::json(request).await?).await;
    if result.is_err() {
        app.0.limits.registration_failed(address, app.now_ms());
    }
    result
}

async fn answer(app: &App, request: RegisterRequest) -> Result<Json<RegisterResponse>> {
    if !is_machine_name(&request.name) {
        return Err(Failure::usage(
            "the name of a machine has 3 to 32 characters of A-Z a-z 0-9 _ -",
        ));
    }
    if request.platform.len() > MAX_PLATFORM_LEN || request.platform.chars().any(char::is_control) {
        return Err(Failure::usage("the platform is a short word"));
    }
    let refused = || Failure::auth("the invitation is not known, expired or used");
    let invitation: Invitation = request.invitation.parse().map_err(|_| refused())?;
    let public_key: [u8; 32] =
        unhex(&request.public_key).ok_or_else(|| Failure::usage("no public key"))?;
    let proof: [u8; 64] =
        unhex(&request.signature).ok_or_else(|| Failure::usage("no signature"))?;
    let hash = invitation.hash();
    if !signature::verify(&public_key, &register_message(&hash, &request.name), &proof) {
        return Err(Failure::auth("the request is not signed by its key"));
    }
    let token = app.random::<32>();
    let machine = MachineId::of(&public_key);
    let registration = Registration {
        invitation: hash,
        machine,
        name: request.name.clone(),
        platform: request.platform,
        token: token_hash(&token),
        now_ms: app.now_ms(),
    };
    let (vault, vid) = match app.0.catalog.register(registration).await? {
        Registered::Done { vault, vid } => (vault, vid),
        Registered::NotInvited => return Err(refused()),
        Registered::Revoked => return Err(Failure::revoked()),
        Registered::NameTaken => {
            let detail = format!(
                "a machine named {} is in this vault already: choose another name",
                request.name
            );
            return Err(Failure::new(StatusCode::CONFLICT, Code::Conflict, detail));
        }
    };
    tracing::info!(%machine, name = request.name, "a machine registered");
    let head = match vid {
        None => None,
        Some(vid) => Some(match app.0.catalog.tip(vault).await? {
            Some(tip) => Head {
                n: tip.n,
                hash: tip.hash,
            },
            None => Head {
                n: 0,
                hash: CommitHash::genesis(vid),
            },
        }),
    };
    Ok(Json(RegisterResponse {
        token: HEXLOWER.encode(&token),
        machine,
        vault: vid,
        head,
    }))
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}
