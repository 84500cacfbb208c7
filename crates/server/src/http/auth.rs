//! Who asks? Every handler that takes a [`Member`] runs only for a machine of the vault in its path.

use axum::extract::{FromRequestParts, RawPathParams};
use http::header::AUTHORIZATION;
use http::request::Parts;
use syncagent_protocol::VaultId;

use super::problem::{Failure, Result};
use crate::app::App;
use crate::catalog::{Session, VaultKey};

/// What the server stores instead of a token.
pub(crate) fn token_hash(token: &[u8; 32]) -> [u8; 32] {
    syncagent_protocol::sha256(&[b"SyncAgent/v1/token\0", token])
}

/// The machine behind a token's text.
pub(crate) async fn authenticate(app: &App, token: &str) -> Result<Session> {
    let unknown = || Failure::auth("the token is not known");
    let token = data_encoding::HEXLOWER
        .decode(token.as_bytes())
        .map_err(|_| unknown())?;
    let token: [u8; 32] = token.try_into().map_err(|_| unknown())?;
    // Found by hash: how long the search takes says nothing about a token that is close.
    let session = app
        .0
        .catalog
        .authenticate(token_hash(&token))
        .await?
        .ok_or_else(unknown)?;
    if session.revoked {
        return Err(Failure::revoked());
    }
    app.saw(&session);
    Ok(session)
}

/// A machine of any vault.
pub(crate) struct Bearer(pub(crate) Session);

impl FromRequestParts<App> for Bearer {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let header = parts
            .headers
            .get(AUTHORIZATION)
            .ok_or_else(|| Failure::auth("the request carries no token"))?;
        let token = header
            .to_str()
            .ok()
            .and_then(|text| text.strip_prefix("Bearer "));
        let token = token.ok_or_else(|| Failure::auth("the request carries no bearer token"))?;
        authenticate(app, token).await.map(Self)
    }
}

/// A machine of the vault in the path.
pub(crate) struct Member {
    pub(crate) session: Session,
    /// The id in the path: the vault's, or any while the vault has none.
    pub(crate) vid: VaultId,
}

impl Member {
    pub(crate) fn vault(&self) -> VaultKey {
        self.session.vault
    }

    /// Refuses what makes sense only once the vault has its first commit.
    pub(crate) fn founded(&self) -> Result<()> {
        match self.session.vid {
            Some(_) => Ok(()),
            None => Err(Failure::not_found("the vault has no first commit yet")),
        }
    }
}

impl FromRequestParts<App> for Member {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let Bearer(session) = Bearer::from_request_parts(parts, app).await?;
        let params = RawPathParams::from_request_parts(parts, app)
            .await
            .map_err(|error| Failure::usage(error.body_text()))?;
        let vid = params
            .iter()
            .find(|(name, _)| *name == "vid")
            .and_then(|(_, text)| text.parse().ok());
        let vid: VaultId = vid.ok_or_else(|| Failure::usage("the path names no vault"))?;
        match session.vid {
            Some(own) if own != vid => Err(Failure::other_vault()),
            _ => Ok(Self { session, vid }),
        }
    }
}
