//! Files that come while many processes are traced, read by a thread of its own: a large one takes seconds, in which other processes
//! begin, load their libraries and end.

use std::sync::mpsc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{files::Unplaced, read_module::HowToRead};
use crate::target::LoadedModule;

/// The thread, from the first file on, and the way to it.
pub(super) struct Reads {
    /// What is looked for.
    pub(super) how: HowToRead,
    jobs: Option<mpsc::Sender<LoadedModule>>,
    finished: UnboundedSender<Unplaced>,
    /// Until it is taken.
    told: Option<UnboundedReceiver<Unplaced>>,
}

impl Reads {
    /// Nothing is read yet.
    pub(super) fn new(how: HowToRead) -> Self {
        let (finished, told) = unbounded_channel();
        Self { how, jobs: None, finished, told: Some(told) }
    }

    /// Where files come out that were read; can be taken once.
    pub(super) fn told(&mut self) -> Option<UnboundedReceiver<Unplaced>> {
        self.told.take()
    }

    /// Has a file read. The thread ends when this is dropped, after the file that it is reading.
    pub(super) fn read(&mut self, file: LoadedModule) {
        let (how, finished) = (&self.how, &self.finished);
        let jobs = self.jobs.get_or_insert_with(|| {
            let (jobs, files) = mpsc::channel::<LoadedModule>();
            let (how, finished) = (how.clone(), finished.clone());
            std::thread::spawn(move || {
                for file in files {
                    if finished.send(vec![(file.id, how.read(&file))]).is_err() {
                        break;
                    }
                }
            });
            jobs
        });
        if jobs.send(file).is_err() {
            log::error!("the thread that reads files has ended");
        }
    }
}
