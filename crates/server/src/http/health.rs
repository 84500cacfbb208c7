//! Is it alive, is it ready?

use axum::extract::State;
use http::StatusCode;
use syncagent_protocol::Code;

use super::problem::{Failure, Result};
use crate::app::App;

pub(crate) async fn alive() -> &'static str {
    "ok"
}

pub(crate) async fn ready(State(app): State<App>) -> Result<&'static str> {
    match app.0.catalog.authenticate([0; 32]).await {
        Ok(_) => Ok("ok"),
        Err(error) => {
            tracing::warn!(%error, "not ready");
            Err(Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                Code::Server,
                "the catalog does not answer",
            ))
        }
    }
}
