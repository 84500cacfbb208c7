//! Where a test may have the process die: at each step of what brings content to another machine and makes it last.
//!
//! The binary says what happens at a point ([`arm`]), because it alone reads the environment and ends processes. In a
//! build without debug assertions, which is what people run, nothing can be armed, and [`point`] is nothing.

#[cfg(debug_assertions)]
use std::sync::OnceLock;

macro_rules! points {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// A place in the code. Each stands in it once.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Point {
            $($(#[doc = $doc])* $name,)*
        }

        impl Point {
            /// Every point, in the order in which an edit comes by.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }
    };
}

points! {
    // A machine that sends.
    /// A pack is full, and not on its way yet.
    PackReady,
    /// The server has a pack; the machine has not noted that.
    PackAcknowledged,
    /// It has.
    PackNoted,
    /// A commit is sealed; the transaction that keeps it, with the rows it will leave, has not ended.
    CommitSealing,
    /// It is kept, and not posted yet.
    CommitSealed,
    /// The server has it; the machine has heard that, and not taken it into its index.
    CommitAnswered,
    /// It has, and not tidied up after it.
    CommitTaken,

    // A server that takes.
    /// A new pack is an empty file in `incoming/`.
    PackBegun,
    /// Some of it is written.
    PackPieceWritten,
    /// All of it is written, and not flushed.
    PackWritten,
    /// It is flushed, and has no name yet.
    PackFlushed,
    /// It has its name; the directory is not flushed.
    PackNamed,
    /// It is durable, and the catalog does not know it.
    PackDurable,
    /// The transaction that makes it known has not ended.
    PackRecording,
    /// It is known, and nobody was told.
    PackRecorded,
    /// A commit is written; its transaction has not ended.
    CommitAppending,
    /// It is appended; neither its author nor anybody else was told.
    CommitAppended,
    /// The other machines were told, its author was not.
    CommitTold,

    // A server that gives.
    /// Some commits of a page are read, none is sent.
    CommitsRead,
    /// Some chunks of an answer are read, and not sent.
    ChunksRead,

    // A machine that takes.
    /// Commits are here, and not verified.
    CommitsFetched,
    /// They are verified; the transaction that keeps them has not ended.
    CommitsKeeping,
    /// They are kept.
    CommitsKept,
    /// A part of a long file is written beside the others.
    PartWritten,
    /// A small file is written; it has neither its time nor its mode.
    ContentWritten,
    /// A file is whole, with time and mode, and not flushed.
    FileStaged,
    /// The ids of what is about to be made are noted.
    IdsNoted,
    /// The content of a batch is flushed; nothing of it is visible.
    BatchFlushed,
    /// A directory is made.
    DirectoryMade,
    /// What is new has its place, where nothing was.
    NewPlaced,
    /// What is new has the name under which it is exchanged.
    SwapNamed,
    /// It is exchanged with what stood there, which was not looked at again.
    Exchanged,
    /// It is noted that a file gets a second name, for a conflict copy.
    AsideNoted,
    /// It has that name.
    AsideLinked,
    /// The conflict copy stands; its note is there yet.
    AsideKept,
    /// Time and executable bit are set.
    MetaSet,
    /// A file or directory is moved.
    NodeMoved,
    /// Two have changed places.
    NodesSwapped,
    /// A file is taken out of its place, to be removed.
    TakenOut,
    /// An empty directory is removed.
    DirectoryRemoved,
    /// All names are flushed; the old files are there yet.
    NamesFlushed,
    /// The old files are let go; no row says that anything was done.
    OldLetGo,
    /// The transaction that says so has not ended.
    RowsWriting,
    /// It has ended.
    RowsWritten,
}

#[cfg(debug_assertions)]
static ARMED: OnceLock<Box<dyn Fn(Point) + Send + Sync>> = OnceLock::new();

/// From now on `hook` is called at every point. Only the first call counts.
#[cfg(debug_assertions)]
pub fn arm(hook: impl Fn(Point) + Send + Sync + 'static) {
    let _ = ARMED.set(Box::new(hook));
}

/// The process is at this point.
#[inline(always)]
pub fn point(_point: Point) {
    #[cfg(debug_assertions)]
    if let Some(hook) = ARMED.get() {
        hook(_point);
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn only_the_first_hook_is_told_where_the_process_is() {
        static SEEN: Mutex<Vec<&str>> = Mutex::new(Vec::new());
        point(Point::PackReady);
        arm(|_| SEEN.lock().unwrap().push("first"));
        arm(|_| SEEN.lock().unwrap().push("second"));
        point(Point::PackReady);
        point(Point::RowsWritten);
        assert_eq!(*SEEN.lock().unwrap(), ["first", "first"]);
    }
}
