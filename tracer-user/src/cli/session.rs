//! Arguments of the commands to a running session: `snapshot`, `mark`, `pause`, `resume`.

use clap::Args;
use tracer_user::session::control::Request;

use super::args::Action;

/// Which session.
#[derive(Debug, Args)]
pub(super) struct SessionArgs {
    /// The session with this target, where several run (see `sessions`)
    #[arg(long, value_name = "PID")]
    session: Option<u32>,
}

/// What `snapshot` takes.
#[derive(Debug, Args)]
pub(super) struct SnapshotArgs {
    /// Name of the snapshot, for REC@TEXT
    #[arg(long, value_name = "TEXT", value_parser = parse_label)]
    label: Option<String>,
    #[command(flatten)]
    session: SessionArgs,
}

/// What `mark` takes.
#[derive(Debug, Args)]
pub(super) struct MarkArgs {
    /// What happens now ("load test begins")
    #[arg(value_parser = parse_mark)]
    text: String,
    #[command(flatten)]
    session: SessionArgs,
}

impl SessionArgs {
    /// The validated action.
    pub(super) fn action(self, request: Request) -> Action {
        Action::Ask { session: self.session, request }
    }
}

impl SnapshotArgs {
    /// The validated action.
    pub(super) fn action(self) -> Action {
        self.session.action(Request::Snapshot { label: self.label })
    }
}

impl MarkArgs {
    /// The validated action.
    pub(super) fn action(self) -> Action {
        self.session.action(Request::Mark { text: self.text })
    }
}

fn parse_label(text: &str) -> Result<String, String> {
    Request::Snapshot { label: Some(text.to_owned()) }.check().map(|()| text.to_owned())
}

fn parse_mark(text: &str) -> Result<String, String> {
    Request::Mark { text: text.to_owned() }.check().map(|()| text.to_owned())
}
