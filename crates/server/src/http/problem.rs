//! Every error in one shape: problem+json with a stable code. Causes go to the log, never over the wire.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use syncagent_protocol::api::{Head, PROBLEM, Problem};
use syncagent_protocol::commit::FormatError;
use syncagent_protocol::{ChunkId, Code};

use crate::catalog::CatalogError;
use crate::chunks::StoreError;
use crate::work::Lost;

/// An answer that is not the one hoped for.
#[derive(Debug)]
pub(crate) struct Failure(Box<Problem>);

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(status: StatusCode, code: Code, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem {
            code,
            status: status.as_u16(),
            title: code.meaning().to_owned(),
            detail: detail.into(),
            head: None,
            missing: Vec::new(),
        }))
    }

    pub(crate) fn usage(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::Usage, detail)
    }

    pub(crate) fn auth(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, Code::Auth, detail)
    }

    pub(crate) fn revoked() -> Self {
        Self::new(StatusCode::FORBIDDEN, Code::Revoked, "")
    }

    pub(crate) fn other_vault() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            Code::Vault,
            "this machine is registered with another vault",
        )
    }

    pub(crate) fn not_found(detail: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, Code::NotFound, detail)
    }

    pub(crate) fn too_long(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::Limit, detail)
    }

    pub(crate) fn crowded() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            Code::Busy,
            "too many requests at once, try again",
        )
    }

    pub(crate) fn stale(head: Head) -> Self {
        let mut failure = Self::new(
            StatusCode::CONFLICT,
            Code::Conflict,
            "the commit does not stand on the head",
        );
        failure.0.head = Some(head);
        failure
    }

    pub(crate) fn missing(ids: Vec<ChunkId>) -> Self {
        let mut failure = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            Code::Missing,
            "upload them first",
        );
        failure.0.missing = ids;
        failure
    }

    /// Our fault: the cause stays in the log.
    pub(crate) fn server(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Server, "")
    }

    fn disk_full() -> Self {
        tracing::error!("no space is left in the data directory");
        Self::new(
            StatusCode::INSUFFICIENT_STORAGE,
            Code::DiskFull,
            "on the server",
        )
    }

    pub(crate) fn into_problem(self) -> Problem {
        *self.0
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Strings and numbers only: it cannot fail.
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, PROBLEM)], body).into_response();
        if matches!(
            status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        ) {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Full | CatalogError::FullAfterwards => Self::disk_full(),
            CatalogError::Busy => Self::crowded(),
            CatalogError::Torn(_) | CatalogError::Broken(_) => Self::server(&error),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::disk_full(),
            StoreError::NotFound(_) | StoreError::Unreadable(_) | StoreError::Broken(_) => {
                Self::server(&error)
            }
        }
    }
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        Self::server(&lost)
    }
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Self {
        let code = error.code();
        let status = match code {
            Code::Limit => StatusCode::PAYLOAD_TOO_LARGE,
            Code::Machine => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, code, error.to_string())
    }
}

pub(crate) async fn no_route() -> Failure {
    Failure::not_found("no such route")
}

pub(crate) async fn no_method() -> Failure {
    Failure::new(
        StatusCode::METHOD_NOT_ALLOWED,
        Code::Usage,
        "no such method here",
    )
}
