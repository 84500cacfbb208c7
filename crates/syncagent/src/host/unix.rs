//! The kernel's node name.

use crate::context::Variables;

pub(crate) fn name(_variables: &Variables) -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
