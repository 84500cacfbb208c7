//! What the computer calls itself.

#[cfg(unix)]
#[path = "host/unix.rs"]
mod system;
#[cfg(not(unix))]
#[path = "host/windows.rs"]
mod system;

pub(crate) use system::name;

/// Operating system and processor, as `linux-x86_64`.
pub(crate) fn platform() -> String {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}
