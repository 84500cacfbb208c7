//! What is going on: a bar with speed and time left on a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::context::Context;

/// Shows how far a transfer is. Everything goes to stderr.
pub(crate) struct Progress {
    style: Option<ProgressStyle>,
    /// While there is something to show.
    bar: Option<ProgressBar>,
    plain: bool,
    /// Tenths of the total that a plain line was written for.
    told: u64,
}

impl Progress {
    pub(crate) fn new(context: &Context) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let quiet = context.output.is_quiet();
        let colour = if context.variables.get("NO_COLOR").is_some() {
            ""
        } else {
            ".cyan"
        };
        let template = format!(
            "{{msg}} [{{bar:25{colour}}}] {{binary_bytes}} of {{binary_total_bytes}}{{speed}}"
        );
        let style = ProgressStyle::with_template(&template).ok();
        let style = style.filter(|_| terminal && !quiet);
        Self {
            style: style.map(|style| style.progress_chars("=> ").with_key("speed", speed)),
            bar: None,
            plain: !terminal && !quiet,
            told: 0,
        }
    }

    /// `done` of `total` bytes.
    pub(crate) fn show(&mut self, what: &str, done: u64, total: u64) {
        // A list of chunks counts, too, and is in no total.
        let done = done.min(total);
        if total == 0 {
            return;
        }
        if let Some(style) = &self.style {
            // A new one each time: speed counts from here.
            let bar = self.bar.get_or_insert_with(|| {
                let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
                bar.set_style(style.clone());
                bar.enable_steady_tick(Duration::from_millis(200));
                bar
            });
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(what.to_owned());
        } else if self.plain {
            let tenths = done.saturating_mul(10) / total;
            if tenths != self.told {
                self.told = tenths;
                let (done, total) = (super::text::size(done), super::text::size(total));
                eprintln!("{what}: {done} of {total}");
            }
        }
    }

    /// Takes it away until there is something to show again.
    pub(crate) fn clear(&mut self) {
        self.told = 0;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// `, 12.0 MiB/s, 3 minutes left`; nothing as long as nobody can know, or when there is nothing left.
fn speed(state: &ProgressState, to: &mut dyn std::fmt::Write) {
    let per_second = state.per_sec();
    if per_second < 1.0 || state.pos() == 0 {
        return;
    }
    let _ = write!(to, ", {}/s", super::text::size(per_second as u64));
    if state.eta() >= Duration::from_secs(1) {
        let _ = write!(to, ", {} left", HumanDuration(state.eta()));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
