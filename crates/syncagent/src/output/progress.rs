//! What is going on: a bar with speed and time left on a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::context::Context;

/// Shows how far a transfer is. Everything goes to stderr.
pub(crate) struct Progress {
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
        let bar = (terminal && !quiet).then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
            let template = format!(
                "{{msg:20}} [{{bar:25{colour}}}] {{binary_bytes}}/{{binary_total_bytes}} {{binary_bytes_per_sec}}, {{eta}} left"
            );
            if let Ok(style) = ProgressStyle::with_template(&template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self {
            bar,
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
        if let Some(bar) = &self.bar {
            if bar.is_hidden() {
                // Speed counts from here.
                bar.reset();
                bar.set_draw_target(ProgressDrawTarget::stderr());
            }
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
        if let Some(bar) = &self.bar {
            bar.reset();
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
