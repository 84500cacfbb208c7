//! What holds a secret cannot be printed, copied or serialised by accident, and wipes it when it goes.
//!
//! All of it is checked by the compiler: a type that gains one of these traits no longer builds this test.

use std::fmt::Debug;

use serde::Serialize;
use syncagent_protocol::invitation::Invitation;
use syncagent_vault::chunk::{ChunkKey, Entry, Sealed};
use syncagent_vault::keys::{Keys, VaultKey};
use syncagent_vault::machine::MachineKey;
use syncagent_vault::manifest::Manifest;
use syncagent_vault::op::{Content, Draft, File, Opened, Put, PutBody};
use syncagent_vault::recovery::RecoveryCode;
use syncagent_vault::secret::Secret;
use syncagent_vault::slot::Password;
use zeroize::ZeroizeOnDrop;

/// Two blanket implementations: for a type with the trait it is ambiguous which one `name` is of.
macro_rules! never {
    ($trait:ident: $($type:ty),* $(,)?) => {
        const _: () = {
            struct Has;
            trait Ambiguous<Which> {
                const OK: () = ();
            }
            impl<T> Ambiguous<()> for T {}
            impl<T: $trait> Ambiguous<Has> for T {}
            $(let _: () = <$type as Ambiguous<_>>::OK;)*
        };
    };
}

macro_rules! no_secret_has {
    ($($trait:ident),*) => {
        $(never!($trait:
            Secret<32>, VaultKey, Keys, MachineKey, Password, RecoveryCode, Invitation,
            ChunkKey, Entry, Sealed, Manifest,
            Put, PutBody, File, Content, Draft, Opened,
        );)*
    };
}

no_secret_has!(Debug, Clone, Serialize);

#[test]
fn keys_are_wiped_when_they_are_dropped() {
    fn wiped<T: ZeroizeOnDrop>() {}
    wiped::<Secret<32>>();
    wiped::<VaultKey>();
    wiped::<Keys>();
    wiped::<MachineKey>();
    wiped::<Password>();
    wiped::<RecoveryCode>();
    wiped::<ChunkKey>();
}
