//! VMs.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::IntoResponse;
use model::{Boot, Name, Operation, Role, Vm, VmSpec};
use registry::{Change, NewVm, RegistryError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::access::blocking;
use crate::extract::{Asking, Body, IfMatch, Params, Path, etag};
use crate::list::{ListParams, Page};
use crate::{Caller, Problem, Shared};

/// Whose VMs.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ProjectParams {
    /// The project's name.
    #[serde(default = "default_project")]
    #[param(default = "default", value_type = Option<String>)]
    pub project: Name,
}

fn default_project() -> Name {
    // The one that is there from the beginning.
    Name::try_from("default".to_owned()).unwrap_or_else(|_| unreachable!("it is a name"))
}

/// Of which project, if only of one.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfProject {
    /// The project's name; without it, of all.
    #[param(value_type = Option<String>)]
    project: Option<Name>,
}

/// How.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ForceParams {
    /// Whatever the guest does: as pulling the plug.
    #[serde(default)]
    force: bool,
}

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

/// Where to ask for an operation.
pub(crate) fn location(operation: &Operation) -> [(HeaderName, String); 1] {
    [(header::LOCATION, format!("/v1/operations/{}", operation.id))]
}

/// Files of the host are not every operator's.
fn check_files(spec: &VmSpec, caller: &Caller) -> Result<(), Problem> {
    if matches!(spec.boot_from, Boot::Kernel(_)) && caller.role < Role::Admin {
        let detail = "boot_from.kernel names files of the host, which needs the role Admin";
        return Err(Problem::new(StatusCode::FORBIDDEN, "host-files", detail));
    }
    Ok(())
}

/// The VMs there are
#[utoipa::path(get, path = "/v1/vms", tag = "vms", params(OfProject, ListParams), responses(
    (status = 200, description = "A page of VMs, the oldest first", body = Page<Vm>),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn list(
    State(state): Shared,
    Params(of): Params<OfProject>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Vm>>, Problem> {
    blocking(move || {
        let (vms, revision) = state.registry.vms(params.begin()?.0)?;
        let vms = vms.into_iter().map(|kept| kept.object);
        let vms = vms.filter(|vm| of.project.as_ref().is_none_or(|of| *of == vm.meta.project));
        params.page(vms.collect(), revision).map(Json)
    })
    .await
}

/// Make a VM
#[utoipa::path(post, path = "/v1/vms", tag = "vms", params(
    ProjectParams,
    ("Idempotency-Key" = Option<String>, Header, description = "Asked again with it within a day, nothing is done again"),
), request_body = NewVmBody, responses(
    (status = 202, description = "It is being made", body = Created),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn create(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    asking: Asking,
    Body(body): Body<NewVmBody>,
) -> Result<impl IntoResponse, Problem> {
    check_files(&body.spec, &asking.caller)?;
    blocking(move || {
        let new = NewVm { name: body.name, project: of.project, spec: body.spec };
        let (vm, operation) = state.registry.create_vm(new, &asking.asked)?;
        let (etag, location) = (etag(vm.revision), location(&operation));
        Ok((StatusCode::ACCEPTED, etag, location, Json(Created { vm: vm.object, operation })))
    })
    .await
}

/// A VM
#[utoipa::path(get, path = "/v1/vms/{vm}", tag = "vms", params(
    ProjectParams, ("vm" = String, Path, description = "Its name or ID"),
), responses(
    (status = 200, description = "It; its ETag is its spec's", body = Vm),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn get(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(vm): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    blocking(move || {
        let vm = state.registry.vm(&of.project, &vm)?;
        Ok((etag(vm.revision), Json(vm.object)))
    })
    .await
}

/// Change a VM's spec, by a merge patch
#[utoipa::path(patch, path = "/v1/vms/{vm}", tag = "vms", params(
    ProjectParams, ("vm" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), request_body(content = Object, description = "As `{\"spec\": {\"cpus\": 2}}`; it counts from the next start"),
responses(
    (status = 200, description = "The VM with the new spec", body = Vm),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn patch(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(vm): Path<String>,
    IfMatch(revision): IfMatch,
    asking: Asking,
    Body(patch): Body<Value>,
) -> Result<impl IntoResponse, Problem> {
    let spec = match &patch {
        Value::Object(fields) if fields.len() == 1 => fields.get("spec").cloned(),
        _ => None,
    };
    let Some(spec) = spec else {
        return Err(Problem::bad_request("give an object with a 'spec', and nothing else"));
    };
    blocking(move || {
        let patched = |old: &VmSpec| {
            let damaged =
                |source| RegistryError::Damaged { key: "the patched spec".to_owned(), source };
            let mut value = serde_json::to_value(old).map_err(damaged)?;
            merge(&mut value, &spec);
            serde_json::from_value(value).map_err(damaged)
        };
        // Once before, for what the patch itself says.
        let now = state.registry.vm(&of.project, &vm)?.object.spec;
        let new: VmSpec = patched(&now).map_err(|error| match error {
            RegistryError::Damaged { source, .. } => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid-spec",
                format!("spec: {source}"),
            ),
            error => error.into(),
        })?;
        check_files(&new, &asking.caller)?;
        let vm = state.registry.update_vm(&of.project, &vm, patched, revision)?;
        Ok((etag(vm.revision), Json(vm.object)))
    })
    .await
}

/// RFC 7396, section 2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(object) = target else { return };
    for (field, value) in fields {
        if value.is_null() {
            object.remove(field);
        } else {
            merge(object.entry(field).or_insert(Value::Null), value);
        }
    }
}

/// Which VM, and of which revision it must be.
struct Which {
    of: ProjectParams,
    vm: String,
    revision: Option<store::Revision>,
}

async fn change(
    state: std::sync::Arc<crate::State>,
    which: Which,
    asking: Asking,
    change: Change,
) -> Result<impl IntoResponse, Problem> {
    blocking(move || {
        let Which { of, vm, revision } = which;
        let registry = &state.registry;
        let operation = registry.change_vm(&of.project, &vm, &change, revision, &asking.asked)?;
        Ok((StatusCode::ACCEPTED, location(&operation), Json(operation)))
    })
    .await
}

/// Delete a VM and its disk
#[utoipa::path(delete, path = "/v1/vms/{vm}", tag = "vms", params(
    ProjectParams, ForceParams, ("vm" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), responses(
    (status = 202, description = "It is going away", body = Operation),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn delete(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Params(how): Params<ForceParams>,
    Path(vm): Path<String>,
    IfMatch(revision): IfMatch,
    asking: Asking,
) -> Result<impl IntoResponse, Problem> {
    let delete = Change::Delete { is_forced: how.force };
    change(state, Which { of, vm, revision }, asking, delete).await
}

/// Stop a VM: ask its guest to shut down, and end it when its time for that is over
#[utoipa::path(post, path = "/v1/vms/{vm}/stop", tag = "vms", params(
    ProjectParams, ForceParams, ("vm" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), responses(
    (status = 202, description = "It is stopping", body = Operation),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
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
    change(state, Which { of, vm, revision }, asking, stop).await
}

macro_rules! verb {
    ($name:ident, $change:ident, $path:literal, $summary:literal) => {
        #[doc = $summary]
        #[utoipa::path(post, path = $path, tag = "vms", params(
            ProjectParams, ("vm" = String, Path, description = "Its name or ID"),
            ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
        ), responses(
            (status = 202, description = "It is being done", body = Operation),
            (status = "default", description = "A problem", body = Problem,
                content_type = "application/problem+json"),
        ))]
        pub(crate) async fn $name(
            State(state): Shared,
            Params(of): Params<ProjectParams>,
            Path(vm): Path<String>,
            IfMatch(revision): IfMatch,
            asking: Asking,
        ) -> Result<impl IntoResponse, Problem> {
            change(state, Which { of, vm, revision }, asking, Change::$change).await
        }
    };
}

verb!(start, Start, "/v1/vms/{vm}/start", "Start a VM; one that runs is left so");
verb!(restart, Restart, "/v1/vms/{vm}/restart", "Stop a VM and start it");
verb!(pause, Pause, "/v1/vms/{vm}/pause", "Make a VM and its clock stand");
verb!(resume, Resume, "/v1/vms/{vm}/resume", "Let a VM go on");

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_merge_patch_sets_replaces_and_removes() {
        let mut target = json!({"a": {"b": 1, "c": 2}, "d": [1], "e": 3});
        merge(
            &mut target,
            &json!({"a": {"b": null, "x": {"y": null, "z": 1}}, "d": [2], "e": null}),
        );
        assert_eq!(target, json!({"a": {"c": 2, "x": {"z": 1}}, "d": [2]}));
    }
}
