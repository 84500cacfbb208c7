//! The variable that every session has.

use crate::context::Variables;

pub(crate) fn name(variables: &Variables) -> String {
    variables
        .get("COMPUTERNAME")
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
