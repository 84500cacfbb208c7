//! Every route on one page (docs/protocol.md). A handler parses, asks the catalog or the store, answers.

pub(crate) mod auth;
mod body;
mod chunks;
mod events;
mod guard;
mod health;
mod log;
mod machines;
mod packs;
pub(crate) mod problem;
mod register;
mod slots;

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::{delete, get, post, put};
use syncagent_protocol::api;

use crate::app::App;

pub(crate) fn router(app: App) -> Router {
    let vault = Router::new()
        .route("/head", get(log::head))
        .route("/commits", get(log::read).post(log::post))
        .route("/packs", post(packs::post))
        .route("/chunks/missing", post(chunks::missing))
        .route("/chunks/fetch", post(chunks::fetch))
        .route("/chunks/{id}", get(chunks::get))
        .route("/slots/{kind}", get(slots::get).put(slots::put))
        .route("/machines", get(machines::list))
        .route("/machines/{id}", delete(machines::remove))
        .route("/report", put(machines::report));
    Router::new()
        .nest("/api/v1/vaults/{vid}", vault)
        .route(api::REGISTER, post(register::register))
        .route(api::EVENTS, get(events::socket))
        .route(api::HEALTH, get(health::alive))
        .route("/readyz", get(health::ready))
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .layer(from_fn(guard::guard))
        .with_state(app)
}
