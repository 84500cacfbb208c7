//! A server that lies: it stands between a real machine and the real server, and answers what a test makes it answer.

use std::io::{Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use syncagent_protocol::pack::{Deframer, push_framed};

/// Headers that say how a body travels: each connection has its own.
const OF_THE_WAY: [&str; 5] = [
    "connection",
    "content-length",
    "transfer-encoding",
    "keep-alive",
    "expect",
];

type Headers = Vec<(String, String)>;

/// What a machine asked.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Whether it is one of these: a method and the end of a path, without query.
    pub(crate) fn is(&self, method: &str, resource: &str) -> bool {
        let path = self.path.split('?').next().unwrap_or_default();
        self.method == method && path.ends_with(resource)
    }

    /// Whether it would change what the server has.
    pub(crate) fn uploads(&self) -> bool {
        self.is("POST", "/commits")
            || self.is("POST", "/packs")
            || self.path.contains("/slots/") && self.method == "PUT"
    }
}

/// An answer as HTTP has it.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: vec![("content-type".into(), content_type.into())],
            body: body.into(),
        }
    }

    /// Sets a header in place of what was there.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.into(), value.into()));
        self
    }

    /// As it goes over the wire, and the connection ends.
    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Said\r\n", self.status);
        for (name, value) in &self.headers {
            if !OF_THE_WAY.contains(&name.as_str()) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        let len = self.body.len();
        head.push_str(&format!(
            "content-length: {len}\r\nconnection: close\r\n\r\n"
        ));
        [head.as_bytes(), &self.body].concat()
    }

    /// An answer whose body is made of framed parts, with other parts.
    pub(crate) fn reframed(mut self, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Self {
        let mut parts = parts(&self.body);
        change(&mut parts);
        self.body = framed(&parts);
        self
    }
}

pub(crate) fn parts(body: &[u8]) -> Vec<Vec<u8>> {
    let mut deframer = Deframer::new(usize::MAX);
    deframer.push(body);
    let mut parts = Vec::new();
    while let Some(part) = deframer.next_part().unwrap() {
        parts.push(part.to_vec());
    }
    parts
}

pub(crate) fn framed(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    parts.iter().for_each(|part| push_framed(&mut body, part));
    body
}

/// What the machine gets to hear.
pub(crate) enum Said {
    Answer(Answer),
    /// These bytes and the end of the connection.
    Raw(Vec<u8>),
    /// The first bytes, and then the others again and again while anybody listens.
    Endless(Vec<u8>, Vec<u8>),
    /// This, and who asks again finds nobody until [`Liar::listen_again`].
    Last(Answer),
}

impl From<Answer> for Said {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

/// The server behind, which does not lie.
pub(crate) struct Honest(SocketAddr);

impl Honest {
    pub(crate) fn at(url: &str) -> Self {
        Self(url.strip_prefix("http://").unwrap().parse().unwrap())
    }

    pub(crate) fn ask(&self, request: &Request) -> Answer {
        // HTTP/1.0, so that the answer ends with the connection and is in one piece.
        let mut head = format!("{} {} HTTP/1.0\r\n", request.method, request.path);
        for (name, value) in &request.headers {
            if !OF_THE_WAY.contains(&name.as_str()) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", request.body.len()));
        let mut stream = TcpStream::connect(self.0).unwrap();
        // The server may answer before it has heard everything.
        let _ = stream.write_all(&[head.as_bytes(), &request.body].concat());
        let mut reader = Incoming::new(stream);
        let (first, headers) = reader.head().expect("the server answers");
        let status = first.split(' ').nth(1).unwrap().parse().unwrap();
        let mut body = reader.rest;
        let _ = reader.stream.read_to_end(&mut body);
        Answer {
            status,
            headers,
            body,
        }
    }
}

/// How this server lies.
pub(crate) type Lie = Arc<dyn Fn(&Request, &Honest) -> Said + Send + Sync>;

#[derive(Default)]
struct Shared {
    upstream: Mutex<Option<SocketAddr>>,
    lie: Mutex<Option<Lie>>,
    heard: Mutex<Vec<Request>>,
    /// Sent down every event socket that opens.
    events: Mutex<Vec<Vec<u8>>>,
    /// What a request for an event socket gets for an answer in place of one.
    no_events: Mutex<Option<Answer>>,
    /// How many of them got it.
    turned_away: AtomicUsize,
    ended: AtomicBool,
    /// Nobody listens any more.
    closed: AtomicBool,
}

/// Listens on a port of its own until dropped, and is honest until told to lie.
pub(crate) struct Liar {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Liar {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let liar = Self {
            shared: Arc::new(Shared::default()),
            address,
        };
        liar.listen(listener);
        liar
    }

    fn listen(&self, listener: TcpListener) {
        let here = Arc::clone(&self.shared);
        here.ended.store(false, Ordering::SeqCst);
        here.closed.store(false, Ordering::SeqCst);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if here.ended.load(Ordering::SeqCst) {
                    break;
                }
                if let Ok(stream) = stream {
                    let shared = Arc::clone(&here);
                    thread::spawn(move || serve(stream, &shared));
                }
            }
            drop(listener);
            here.closed.store(true, Ordering::SeqCst);
        });
    }

    /// Listens where it did, after a [`Said::Last`].
    pub(crate) fn listen_again(&self) {
        assert!(
            self.shared.closed.load(Ordering::SeqCst),
            "it still listens"
        );
        self.listen(TcpListener::bind(self.address).unwrap());
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Which server is behind from now on.
    pub(crate) fn lead_to(&self, url: &str) {
        *self.shared.upstream.lock().unwrap() =
            Some(url.strip_prefix("http://").unwrap().parse().unwrap());
    }

    /// Lies like this from now on, and forgets what it has heard.
    pub(crate) fn lie(&self, lie: impl Fn(&Request, &Honest) -> Said + Send + Sync + 'static) {
        *self.shared.lie.lock().unwrap() = Some(Arc::new(lie));
        self.shared.heard.lock().unwrap().clear();
    }

    /// Is honest from now on, and forgets what it has heard.
    pub(crate) fn tell_the_truth(&self) {
        *self.shared.lie.lock().unwrap() = None;
        self.shared.heard.lock().unwrap().clear();
    }

    /// What is said down every event socket that opens from now on.
    pub(crate) fn forge_events(&self, messages: &[&str]) {
        *self.shared.events.lock().unwrap() =
            messages.iter().map(|text| text_frame(text)).collect();
    }

    /// Whoever asks for an event socket from now on gets this answer, or a socket again.
    pub(crate) fn answer_events(&self, answer: Option<Answer>) {
        *self.shared.no_events.lock().unwrap() = answer;
    }

    /// How many event sockets were asked for and refused.
    pub(crate) fn turned_away(&self) -> usize {
        self.shared.turned_away.load(Ordering::SeqCst)
    }

    /// What it was asked since it last changed its ways.
    pub(crate) fn heard(&self) -> Vec<Request> {
        self.shared.heard.lock().unwrap().clone()
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

/// A text message from a server (RFC 6455, section 5.2).
fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u8::try_from(text.len()) {
        Ok(len @ ..126) => frame.push(len),
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(text.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// A connection that is read up to the end of a head.
struct Incoming {
    stream: TcpStream,
    /// What came behind the head.
    rest: Vec<u8>,
    head_bytes: Vec<u8>,
}

impl Incoming {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            rest: Vec::new(),
            head_bytes: Vec::new(),
        }
    }

    /// The first line and the headers, their names in lower case.
    fn head(&mut self) -> Option<(String, Headers)> {
        let mut buf = vec![0; 64 * 1024];
        let end = loop {
            if let Some(at) = self.rest.windows(4).position(|at| at == b"\r\n\r\n") {
                break at + 4;
            }
            match self.stream.read(&mut buf) {
                Ok(n @ 1..) => self.rest.extend_from_slice(&buf[..n]),
                _ => return None,
            }
        };
        let rest = self.rest.split_off(end);
        self.head_bytes = std::mem::replace(&mut self.rest, rest);
        let text = String::from_utf8_lossy(&self.head_bytes);
        let mut lines = text.lines();
        let first = lines.next()?.to_owned();
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        Some((first, headers))
    }
}

fn serve(stream: TcpStream, shared: &Shared) {
    let _ = stream.set_nodelay(true);
    let mut incoming = Incoming::new(stream);
    let Some((first, headers)) = incoming.head() else {
        return;
    };
    let Some(upstream) = *shared.upstream.lock().unwrap() else {
        return;
    };
    if headers.iter().any(|(name, _)| name == "upgrade") {
        if let Some(answer) = shared.no_events.lock().unwrap().clone() {
            shared.turned_away.fetch_add(1, Ordering::SeqCst);
            let _ = incoming.stream.write_all(&answer.bytes());
            return;
        }
        let events = shared.events.lock().unwrap().clone();
        tunnel(incoming, upstream, &events);
        return;
    }
    let len = headers.iter().find(|(name, _)| name == "content-length");
    let len = len.map_or(0, |(_, len)| len.parse().unwrap());
    let mut body = incoming.rest;
    let mut stream = incoming.stream;
    let already = body.len();
    body.resize(len, 0);
    if stream.read_exact(&mut body[already..]).is_err() {
        return;
    }
    let mut words = first.split(' ').map(str::to_owned);
    let request = Request {
        method: words.next().unwrap_or_default(),
        path: words.next().unwrap_or_default(),
        headers,
        body,
    };
    shared.heard.lock().unwrap().push(request.clone());
    let honest = Honest(upstream);
    let lie = shared.lie.lock().unwrap().clone();
    let said = match lie {
        Some(lie) => lie(&request, &honest),
        None => honest.ask(&request).into(),
    };
    let said = match said {
        Said::Last(answer) => {
            shared.ended.store(true, Ordering::SeqCst);
            // Wakes the listener.
            let _ = stream.local_addr().and_then(TcpStream::connect);
            super::until("nobody to listen", Duration::from_secs(60), || {
                shared.closed.load(Ordering::SeqCst).then_some(())
            });
            Said::Answer(answer)
        }
        said => said,
    };
    // The machine may have heard enough.
    let _ = match said {
        Said::Last(_) => unreachable!("answered above"),
        Said::Answer(answer) => stream.write_all(&answer.bytes()),
        Said::Raw(bytes) => stream.write_all(&bytes),
        Said::Endless(bytes, again) => {
            let mut written = stream.write_all(&bytes);
            while written.is_ok() {
                written = stream.write_all(&again);
            }
            written
        }
    };
    let _ = stream.shutdown(Shutdown::Write);
    // Whatever still comes is read, so that the answer is not lost with a reset.
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

/// Carries an event socket, with some messages more.
fn tunnel(incoming: Incoming, upstream: SocketAddr, events: &[Vec<u8>]) {
    let Incoming {
        stream: mut client,
        rest,
        head_bytes,
    } = incoming;
    let mut server = TcpStream::connect(upstream).unwrap();
    let _ = server.write_all(&[head_bytes, rest].concat());
    let mut answer = Incoming::new(server.try_clone().unwrap());
    if answer.head().is_none() {
        return;
    }
    let mut first = answer.head_bytes;
    events
        .iter()
        .for_each(|event| first.extend_from_slice(event));
    first.extend_from_slice(&answer.rest);
    let _ = client.write_all(&first);
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(Shutdown::Both);
}
