//! Secret Service, over the session bus: GNOME Keyring, KWallet, KeePassXC and others
//! (<https://specifications.freedesktop.org/secret-service/latest/>).
//!
//! Secrets go over the bus in the "plain" algorithm: the bus is a socket that its user alone may open, and whoever
//! could listen there could ask for the secret just as well. Every wait has a bound.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt as _;
use zbus::message::Type;
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, OwnedVariant, Variant};
use zeroize::Zeroizing;

use super::{Entry, Keyring, KeyringError, SERVICE};

/// How often one entry may be there.
const MAX_ENTRIES: usize = 8;
const BUS_NAME: &str = "org.freedesktop.secrets";
const SERVICE_PATH: &str = "/org/freedesktop/secrets";
/// The collection that is there for those who name none.
const DEFAULT: &str = "default";
/// A path that stands for none.
const NO_PATH: &str = "/";

/// How long the bus and the service may take, which are on the same computer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a person may take to type what opens their keyring.
const PROMPT_PATIENCE: Duration = Duration::from_secs(60);

/// A secret on the bus: session, parameters of its cipher, value, content type.
type BusSecret = (OwnedObjectPath, Vec<u8>, Vec<u8>, String);

/// A Secret Service, asked anew each time.
struct SecretService {
    address: String,
}

/// The Secret Service of the session bus at this address; none if there is no bus.
pub fn open(bus: Option<&OsStr>) -> Result<Box<dyn Keyring>, KeyringError> {
    let absent = |why: &str| KeyringError::Absent(why.to_owned());
    let address = bus.ok_or_else(|| absent("no session bus (DBUS_SESSION_BUS_ADDRESS)"))?;
    let address = address
        .to_str()
        .ok_or_else(|| absent("its bus has no address"))?;
    Ok(Box::new(SecretService {
        address: address.to_owned(),
    }))
}

impl Keyring for SecretService {
    fn name(&self) -> &'static str {
        "Secret Service"
    }

    fn put(&self, entry: &Entry, secret: &[u8]) -> Result<(), KeyringError> {
        self.ask(async |service| service.put(entry, secret).await)
    }

    fn get(&self, entry: &Entry) -> Result<Option<Zeroizing<Vec<u8>>>, KeyringError> {
        self.ask(async |service| service.get(entry).await)
    }

    fn remove(&self, entry: &Entry) -> Result<(), KeyringError> {
        self.ask(async |service| service.remove(entry).await)
    }
}

impl SecretService {
    /// Asks in a thread of its own, so that it makes no difference whether the caller waits for other things, too.
    fn ask<T: Send>(
        &self,
        question: impl AsyncFnOnce(Service) -> Result<T, KeyringError> + Send,
    ) -> Result<T, KeyringError> {
        let ask = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| KeyringError::Failed(error.to_string()))?;
            let answer = runtime.block_on(async {
                let service = Service::connect(&self.address).await?;
                question(service).await
            });
            runtime.shutdown_background();
            answer
        };
        std::thread::scope(|scope| {
            scope
                .spawn(ask)
                .join()
                .unwrap_or_else(|_| Err(KeyringError::Failed("it could not be asked".into())))
        })
    }
}

async fn in_time<T>(
    patience: Duration,
    answer: impl Future<Output = zbus::Result<T>>,
) -> Result<T, KeyringError> {
    match tokio::time::timeout(patience, answer).await {
        Ok(answer) => answer.map_err(|error| failed(&error)),
        Err(_) => Err(KeyringError::Silent),
    }
}

fn failed(error: &zbus::Error) -> KeyringError {
    use zbus::fdo::Error::{NameHasNoOwner, NoReply, ServiceUnknown};
    match error {
        zbus::Error::FDO(error) => match &**error {
            ServiceUnknown(_) | NameHasNoOwner(_) => {
                KeyringError::Absent("no Secret Service runs on the session bus".into())
            }
            NoReply(_) => KeyringError::Silent,
            error => KeyringError::Failed(error.to_string()),
        },
        zbus::Error::MethodError(name, _, _)
            if name.as_str() == "org.freedesktop.Secret.Error.IsLocked" =>
        {
            KeyringError::Locked
        }
        // The bus would have to start it, and cannot.
        zbus::Error::MethodError(name, _, _)
            if name
                .as_str()
                .starts_with("org.freedesktop.DBus.Error.Spawn") =>
        {
            KeyringError::Absent(error.to_string())
        }
        error => KeyringError::Failed(error.to_string()),
    }
}

/// One conversation.
struct Service {
    bus: Connection,
    session: OwnedObjectPath,
}

impl Service {
    async fn connect(address: &str) -> Result<Self, KeyringError> {
        let connect = zbus::connection::Builder::address(address).build();
        let bus = in_time(PATIENCE, connect)
            .await
            .map_err(|error| match error {
                KeyringError::Failed(why) => {
                    KeyringError::Absent(format!("the session bus cannot be used ({why})"))
                }
                error => error,
            })?;
        let opened = call(
            &bus,
            SERVICE_PATH,
            "Service",
            "OpenSession",
            ("plain", Variant::from("")),
        );
        let (_, session): (OwnedVariant, OwnedObjectPath) = read(&opened.await?)?;
        Ok(Self { bus, session })
    }

    async fn put(&self, entry: &Entry, secret: &[u8]) -> Result<(), KeyringError> {
        let message = self.call(SERVICE_PATH, "Service", "ReadAlias", DEFAULT);
        let (collection,): (OwnedObjectPath,) = read(&message.await?)?;
        if collection.as_str() == NO_PATH {
            return Err(KeyringError::Absent(
                "the Secret Service has no default collection".into(),
            ));
        }
        self.unlock(&collection).await?;
        let properties = HashMap::from([
            (
                "org.freedesktop.Secret.Item.Label",
                Variant::from(entry.label.as_str()),
            ),
            (
                "org.freedesktop.Secret.Item.Attributes",
                Variant::from(attributes(entry)),
            ),
        ]);
        let secret = (
            &self.session,
            Vec::<u8>::new(),
            secret,
            "application/octet-stream",
        );
        let body = (properties, secret, true);
        let message = self.call(collection.as_str(), "Collection", "CreateItem", body);
        let (_, prompt): (OwnedObjectPath, OwnedObjectPath) = read(&message.await?)?;
        self.prompt(&prompt).await
    }

    async fn get(&self, entry: &Entry) -> Result<Option<Zeroizing<Vec<u8>>>, KeyringError> {
        let Some(item) = self.find(entry).await? else {
            return Ok(None);
        };
        self.unlock(&item).await?;
        let message = self.call(item.as_str(), "Item", "GetSecret", (&self.session,));
        let (secret,): (BusSecret,) = read(&message.await?)?;
        Ok(Some(Zeroizing::new(secret.2)))
    }

    async fn remove(&self, entry: &Entry) -> Result<(), KeyringError> {
        // A service that lists what it says it has deleted is not asked for ever.
        for _ in 0..MAX_ENTRIES {
            let Some(item) = self.find(entry).await? else {
                break;
            };
            self.unlock(&item).await?;
            let message = self.call(item.as_str(), "Item", "Delete", ());
            let (prompt,): (OwnedObjectPath,) = read(&message.await?)?;
            self.prompt(&prompt).await?;
        }
        Ok(())
    }

    async fn find(&self, entry: &Entry) -> Result<Option<OwnedObjectPath>, KeyringError> {
        let wanted = (attributes(entry),);
        let message = self.call(SERVICE_PATH, "Service", "SearchItems", wanted);
        let (unlocked, locked): (Vec<OwnedObjectPath>, Vec<OwnedObjectPath>) =
            read(&message.await?)?;
        Ok(unlocked.into_iter().chain(locked).next())
    }

    /// Opens a collection, or the one of an item; what is open already stays so without a question.
    async fn unlock(&self, thing: &OwnedObjectPath) -> Result<(), KeyringError> {
        let message = self.call(SERVICE_PATH, "Service", "Unlock", (vec![thing],));
        let (_, prompt): (Vec<OwnedObjectPath>, OwnedObjectPath) = read(&message.await?)?;
        self.prompt(&prompt).await
    }

    /// Lets the service ask its person, if it wants to.
    async fn prompt(&self, prompt: &OwnedObjectPath) -> Result<(), KeyringError> {
        if prompt.as_str() == NO_PATH {
            return Ok(());
        }
        let completed = MatchRule::builder()
            .msg_type(Type::Signal)
            .interface("org.freedesktop.Secret.Prompt")
            .member("Completed")
            .path(prompt.as_str())
            .build()
            .map_err(|error| failed(&error))?;
        let listen = MessageStream::for_match_rule(completed, &self.bus, None);
        let mut answers = in_time(PATIENCE, listen).await?;
        self.call(prompt.as_str(), "Prompt", "Prompt", ("",))
            .await?;
        let answer = tokio::time::timeout(PROMPT_PATIENCE, answers.next());
        match answer.await {
            Ok(Some(Ok(message))) => {
                let (dismissed, _): (bool, OwnedVariant) = read(&message)?;
                match dismissed {
                    true => Err(KeyringError::Locked),
                    false => Ok(()),
                }
            }
            Ok(Some(Err(error))) => Err(failed(&error)),
            Ok(None) => Err(KeyringError::Silent),
            Err(_) => Err(KeyringError::Locked),
        }
    }

    async fn call(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: impl serde::Serialize + zbus::DynamicType,
    ) -> Result<zbus::Message, KeyringError> {
        call(&self.bus, path, interface, method, body).await
    }
}

async fn call(
    bus: &Connection,
    path: &str,
    interface: &str,
    method: &str,
    body: impl serde::Serialize + zbus::DynamicType,
) -> Result<zbus::Message, KeyringError> {
    let interface = format!("org.freedesktop.Secret.{interface}");
    let answer = bus.call_method(
        Some(BUS_NAME),
        path,
        Some(interface.as_str()),
        method,
        &body,
    );
    in_time(PATIENCE, answer).await
}

fn read<T>(message: &zbus::Message) -> Result<T, KeyringError>
where
    T: for<'d> serde::Deserialize<'d> + zbus::Type,
{
    let body = message.body();
    body.deserialize_ignore_signature::<T>()
        .map_err(|error| failed(&error))
}

/// What an entry is found by.
fn attributes(entry: &Entry) -> HashMap<&str, &str> {
    HashMap::from([("application", SERVICE), ("id", entry.id.as_str())])
}
