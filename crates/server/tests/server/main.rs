//! The server as its clients meet it: through the router, and over a real socket.

mod access;
mod chunks;
mod live;
mod log;
mod world;
