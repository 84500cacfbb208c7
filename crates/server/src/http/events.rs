//! The machines' socket: hints that the log has grown.

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use tokio::time::{Instant, MissedTickBehavior};

use super::auth::Bearer;
use super::problem::{Failure, Result};
use crate::app::{App, Ended, Watch};
use crate::limits::{PING, SILENCE};

const MAX_MESSAGE_LEN: usize = 4096;
/// How long a message may take to leave.
const SEND_TIME: Duration = Duration::from_secs(20);

pub(crate) async fn socket(
    State(app): State<App>,
    Bearer(session): Bearer,
    upgrade: std::result::Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    let upgrade = upgrade.map_err(|error| Failure::usage(error.body_text()))?;
    // Listening begins before the answer: nothing that happens meanwhile is missed.
    let watch = Watch::start(&app, session);
    let upgrade = upgrade
        .max_message_size(MAX_MESSAGE_LEN)
        .max_frame_size(MAX_MESSAGE_LEN)
        .read_buffer_size(MAX_MESSAGE_LEN)
        .write_buffer_size(0)
        .max_write_buffer_size(16 * MAX_MESSAGE_LEN);
    Ok(upgrade.on_upgrade(|socket| run(socket, watch)))
}

async fn run(mut socket: WebSocket, mut watch: Watch) {
    let mut ping = tokio::time::interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let (code, reason) = loop {
        let message = tokio::select! {
            event = watch.next() => match event {
                Ok(event) => Message::text(serde_json::to_string(&event).unwrap_or_default()),
                Err(Ended::Revoked) => break (4403, "E_REVOKED"),
                Err(Ended::Closing) => break (1001, "the server goes down"),
            },
            received = socket.recv() => match received {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {
                    heard = Instant::now();
                    watch.heard();
                    continue;
                }
            },
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE {
                    return;
                }
                Message::Ping(bytes::Bytes::new())
            }
        };
        if !matches!(
            tokio::time::timeout(SEND_TIME, socket.send(message)).await,
            Ok(Ok(()))
        ) {
            return;
        }
    };
    let close = Message::Close(Some(CloseFrame {
        code,
        reason: reason.into(),
    }));
    let _ = tokio::time::timeout(SEND_TIME, socket.send(close)).await;
}
