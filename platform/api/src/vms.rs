//! VMs.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use model::{Boot, Name, Operation, Role, Vm, VmSpec};
use registry::{Change, New};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::disks::of_image;
use crate::extract::{Asking, Body, IfMatch, Params, Path};
use crate::list::{ListParams, Page};
use crate::objects::{self, ForceParams, OfProject, ProjectParams, Visible, Which};
use crate::{Caller, Problem, Shared};

/// A VM that is asked for.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewVmBody {
    /// What it is to be called.
    name: Name,
    /// What is wanted of it.
    #[serde(default)]
    spec: VmSpec,
}

/// A VM that is being made.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Created {
    /// It.
    vm: Vm,
    /// What reports on it.
    operation: Operation,
}

/// Files of the host are not every operator's.
pub(crate) fn check_files(spec: &VmSpec, caller: &Caller) -> Result<(), Problem> {
    let may = caller.need_everywhere(Role::Admin).is_ok();
    if matches!(spec.boot_from, Boot::Kernel(_)) && !may {
        let detail =
            "boot_from.kernel names files of the host, which needs the role admin everywhere";
        return Err(Problem::new(StatusCode::FORBIDDEN, "host-files", detail));
    }
    Ok(())
}

/// The VMs there are
#[utoipa::path(get, path = "/v1/vms", tag = "vms", params(OfProject, ListParams), responses(
    (status = 200, description = "A page of VMs, the oldest first", body = Page<Vm>),
))]
pub(crate) async fn list(
    State(state): Shared,
    of: Visible,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Vm>>, Problem> {
    objects::list(state, of, params).await
}

/// Make a VM
#[utoipa::path(post, path = "/v1/vms", tag = "vms", params(
    ProjectParams,
    ("Idempotency-Key" = Option<String>, Header, description = "Asked again with it within a day, nothing is done again"),
), request_body = NewVmBody, responses(
    (status = 202, description = "It is being made", body = Created),
))]
pub(crate) async fn create(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    asking: Asking,
    Body(body): Body<NewVmBody>,
) -> Result<impl IntoResponse, Problem> {
    check_files(&body.spec, &asking.caller)?;
    if body.spec.scale_set.is_some() {
        let detail = "scale_set: only a scale set makes VMs of its own";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-spec", detail));
    }
    let create = move |state: &crate::State| {
        let NewVmBody { name, spec } = body;
        let root = spec.image.as_deref();
        let root = root.map(|image| of_image(&state.images, image, spec.disk_bytes)).transpose()?;
        let new = New { name, project: of.project, spec };
        Ok(state.registry.create_vm(new, root, &asking.asked)?)
    };
    objects::create(state, create, |vm, operation| Created { vm, operation }).await
}

/// A VM
#[utoipa::path(get, path = "/v1/vms/{vm}", tag = "vms", params(
    ProjectParams, ("vm" = String, Path, description = "Its name or ID"),
), responses(
    (status = 200, description = "It; its ETag is its spec's", body = Vm),
))]
pub(crate) async fn get(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(vm): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    objects::get::<Vm>(state, of, vm).await
}

/// Change a VM's spec, by a merge patch
#[utoipa::path(patch, path = "/v1/vms/{vm}", tag = "vms", params(
    ProjectParams, ("vm" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), request_body(content = Object, description = "As `{\"spec\": {\"labels\": {\"env\": \"prod\"}}}`. CPUs and memory come at once as with `resize`; what else its process is started with counts from the next start"),
responses(
    (status = 200, description = "The VM with the new spec", body = Vm),
))]
pub(crate) async fn patch(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(vm): Path<String>,
    IfMatch(revision): IfMatch,
    asking: Asking,
    Body(patch): Body<Value>,
) -> Result<impl IntoResponse, Problem> {
    let (registry, project, name) = (state.registry.clone(), of.project.clone(), vm.clone());
    let check = move |spec: &VmSpec| {
        check_files(spec, &asking.caller)?;
        Ok(registry.check_cards(spec, &project, Some(&name))?)
    };
    objects::patch::<Vm>(state, Which { of, name: vm, revision }, patch, check).await
}

/// What a VM is to have.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSize {
    /// So many CPUs, if that changes.
    cpus: Option<u32>,
    /// So much RAM in bytes, if that changes.
    memory_bytes: Option<u64>,
}

/// Change a VM's CPUs and memory
///
/// While it runs they come within `cpus_max` and `memory_max_bytes` of its start, memory in steps. What is beyond
/// them, and what is less than there is, counts from the next start: `status.at_next_start` says so.
#[utoipa::path(post, path = "/v1/vms/{vm}/resize", tag = "vms", params(
    ProjectParams, ("vm" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), request_body = NewSize, responses(
    (status = 202, description = "It is being done", body = Operation),
))]
pub(crate) async fn resize(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(vm): Path<String>,
    IfMatch(revision): IfMatch,
    asking: Asking,
    Body(NewSize { cpus, memory_bytes }): Body<NewSize>,
) -> Result<impl IntoResponse, Problem> {
    let resize = Change::Resize { cpus, memory_bytes };
    change(state, Which { of, name: vm, revision }, asking, resize).await
}

async fn change(
    state: std::sync::Arc<crate::State>,
    which: Which,
    asking: Asking,
    change: Change,
) -> Result<impl IntoResponse, Problem> {
    objects::change(state, move |state| {
        let Which { of, name, revision } = which;
        Ok(state.registry.change_vm(&of.project, &name, &change, revision, &asking.asked)?)
    })
    .await
}

/// What becomes of its disks.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeleteParams {
    /// Also those stay that were made for it.
    #[serde(default)]
    keep_disks: bool,
}

/// Delete a VM, and the disks that were made for it
#[utoipa::path(delete, path = "/v1/vms/{vm}", tag = "vms", params(
    ProjectParams, ForceParams, DeleteParams, ("vm" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), responses(
    (status = 202, description = "It is going away", body = Operation),
))]
pub(crate) async fn delete(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Params(how): Params<ForceParams>,
    Params(of_disks): Params<DeleteParams>,
    Path(vm): Path<String>,
    IfMatch(revision): IfMatch,
    asking: Asking,
) -> Result<impl IntoResponse, Problem> {
    let delete = Change::Delete { is_forced: how.force, keeps_disks: of_disks.keep_disks };
    change(state, Which { of, name: vm, revision }, asking, delete).await
}

/// Stop a VM: ask its guest to shut down, and end it when its time for that is over
#[utoipa::path(post, path = "/v1/vms/{vm}/stop", tag = "vms", params(
    ProjectParams, ForceParams, ("vm" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), responses(
    (status = 202, description = "It is stopping", body = Operation),
))]
pub(crate) async fn stop(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Params(how): Params<ForceParams>,
    Path(vm): Path<String>,
    IfMatch(revision): IfMatch,
    asking: Asking,
) -> Result<impl IntoResponse, Problem> {
    let stop = Change::Stop { is_forced: how.force };
    change(state, Which { of, name: vm, revision }, asking, stop).await
}

macro_rules! verb {
    ($name:ident, $change:ident, $path:literal, $summary:literal) => {
        #[doc = $summary]
        #[utoipa::path(post, path = $path, tag = "vms", params(
            ProjectParams, ("vm" = String, Path, description = "Its name or ID"),
            ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
        ), responses(
            (status = 202, description = "It is being done", body = Operation),
        ))]
        pub(crate) async fn $name(
            State(state): Shared,
            Params(of): Params<ProjectParams>,
            Path(vm): Path<String>,
            IfMatch(revision): IfMatch,
            asking: Asking,
        ) -> Result<impl IntoResponse, Problem> {
            change(state, Which { of, name: vm, revision }, asking, Change::$change).await
        }
    };
}

verb!(start, Start, "/v1/vms/{vm}/start", "Start a VM; one that runs is left so");
verb!(restart, Restart, "/v1/vms/{vm}/restart", "Stop a VM and start it");
verb!(pause, Pause, "/v1/vms/{vm}/pause", "Make a VM and its clock stand");
verb!(resume, Resume, "/v1/vms/{vm}/resume", "Let a VM go on");
