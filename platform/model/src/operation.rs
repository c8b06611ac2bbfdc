//! Changes in progress, and what became of them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{Kind, Name, OperationId};

/// A change that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// What it is.
    pub id: OperationId,
    /// What is being done.
    pub verb: Verb,
    /// To what.
    pub target: Target,
    /// Of a VM, the boot that it is done with.
    #[serde(default)]
    pub boot: u64,
    /// Who asked for it.
    pub requestor: Requestor,
    /// How far it is.
    pub state: OperationState,
    /// What is being done just now, for people.
    pub phase: String,
    /// How much of it is done, of 100.
    pub percent: u8,
    /// It can be cancelled now.
    pub can_cancel: bool,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished: Option<Timestamp>,
}

impl Operation {
    /// It is over: done, or failed for this reason.
    pub fn finish(&mut self, error: Option<Failure>, now: Timestamp) {
        let state = if error.is_some() { OperationState::Failed } else { OperationState::Done };
        self.finish_as(state, error, now);
    }

    /// It is over.
    pub fn finish_as(&mut self, state: OperationState, error: Option<Failure>, now: Timestamp) {
        self.state = state;
        self.phase = state.as_str().to_owned();
        self.percent = if state == OperationState::Done { 100 } else { self.percent };
        self.can_cancel = false;
        self.error = error;
        self.finished = Some(now);
    }
}

/// What is done to an object.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// It is made, and started if it is to run.
    Create,
    /// It is started.
    Start,
    /// Its guest is shut down.
    Stop,
    /// It is stopped and started.
    Restart,
    /// It and its clock stand.
    Pause,
    /// It goes on.
    Resume,
    /// It goes away.
    Delete,
    /// It becomes larger.
    Resize,
    /// A VM gets it.
    Attach,
    /// A VM has it no more.
    Detach,
    /// Disks become what they were.
    Revert,
}

impl Verb {
    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Delete => "delete",
            Self::Resize => "resize",
            Self::Attach => "attach",
            Self::Detach => "detach",
            Self::Revert => "revert",
        }
    }
}

/// To what an operation is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Target {
    /// Of what kind it is.
    pub kind: Kind,
    /// Its ID.
    pub id: Uuid,
    /// What it was called.
    pub name: Name,
    /// Its project.
    pub project: Name,
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Requestor {
    /// `uid:N` of a local user, or `token:NAME`.
    pub who: String,
    /// The request's ID, which the audit and the log have too.
    pub request: String,
}

/// How far an operation is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum OperationState {
    /// It is being done.
    Running,
    /// It is done.
    Done,
    /// It cannot be done.
    Failed,
    /// It was cancelled, or another one came in its place.
    Cancelled,
}

impl OperationState {
    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// For programs.
    pub code: String,
    /// For people: what is wrong, and what to do.
    pub message: String,
}
