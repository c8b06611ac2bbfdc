//! What is asked of objects with a spec and a status, whatever their kind.

use std::sync::Arc;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::IntoResponse;
use model::{Name, Object, Operation, Rights};
use registry::{Kept, Mirrored, RegistryError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::Revision;
use utoipa::IntoParams;

use crate::access::blocking;
use crate::extract::{Asking, Params, etag};
use crate::list::{ListParams, Page};
use crate::{Problem, State};

/// Whose objects.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ProjectParams {
    /// The project's name.
    #[serde(default = "Name::default_name")]
    #[param(default = "default", value_type = Option<String>)]
    pub project: Name,
}

/// Of which project, if only of one.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfProject {
    /// The project's name; without it, of all that the caller may see.
    #[param(value_type = Option<String>)]
    pub project: Option<Name>,
}

/// What a caller may see of what they ask for.
pub(crate) struct Visible {
    pub of: Option<Name>,
    pub rights: Rights,
}

impl<S: Send + Sync> FromRequestParts<S> for Visible {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Params(OfProject { project }) = Params::from_request_parts(parts, state).await?;
        let Asking { caller, .. } = Asking::from_request_parts(parts, state).await?;
        Ok(Self { of: project, rights: caller.rights })
    }
}

impl Visible {
    /// What is in this project is.
    pub fn has(&self, project: &Name) -> bool {
        let is_asked = self.of.as_ref().is_none_or(|of| of == project);
        is_asked && self.rights.role_in(project).is_some()
    }

    /// All of it is, of whatever project.
    pub fn has_all(&self) -> bool {
        self.of.is_none() && self.rights.everywhere.is_some()
    }
}

/// How.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ForceParams {
    /// Whatever it costs who uses it: as pulling the plug of a VM.
    #[serde(default)]
    pub force: bool,
}

/// Which object, and of which revision it must be.
pub(crate) struct Which {
    pub of: ProjectParams,
    pub name: String,
    pub revision: Option<Revision>,
}

/// A page of the objects of a kind.
pub(crate) async fn list<O: Mirrored>(
    state: Arc<State>,
    of: Visible,
    params: ListParams,
) -> Result<Json<Page<O>>, Problem> {
    blocking(move || {
        let (all, revision) = state.registry.all::<O>(params.begin()?.0)?;
        let all = all.iter().filter(|object| of.has(&object.meta().project)).cloned();
        let Page { items, next_page, revision } = params.page(all.collect(), revision)?;
        let items = items.into_iter().map(Arc::unwrap_or_clone).collect();
        Ok(Json(Page { items, next_page, revision }))
    })
    .await
}

/// An object, with its tag.
pub(crate) async fn get<O: Mirrored>(
    state: Arc<State>,
    of: ProjectParams,
    name: String,
) -> Result<impl IntoResponse, Problem> {
    blocking(move || Ok(tagged(state.registry.get::<O>(&of.project, &name)?))).await
}

fn tagged<O: Object>(kept: Kept<O>) -> impl IntoResponse {
    (etag(kept.revision), Json(kept.object))
}

/// Changes an object's spec by a merge patch, if `check` lets it through.
pub(crate) async fn patch<O: Mirrored>(
    state: Arc<State>,
    which: Which,
    patch: Value,
    check: impl Fn(&O::Spec) -> Result<(), Problem> + Send + 'static,
) -> Result<impl IntoResponse, Problem> {
    let spec = match &patch {
        Value::Object(fields) if fields.len() == 1 => fields.get("spec").cloned(),
        _ => None,
    };
    let Some(spec) = spec else {
        return Err(Problem::bad_request("give an object with a 'spec', and nothing else"));
    };
    blocking(move || {
        let Which { of, name, revision } = which;
        let patched = |old: &O::Spec| {
            let damaged =
                |source| RegistryError::Damaged { key: "the patched spec".to_owned(), source };
            let mut value = serde_json::to_value(old).map_err(damaged)?;
            merge(&mut value, &spec);
            serde_json::from_value(value).map_err(damaged)
        };
        // Once before, for what the patch itself says.
        let now = state.registry.get::<O>(&of.project, &name)?.object;
        let new = patched(now.spec()).map_err(|error| match error {
            RegistryError::Damaged { source, .. } => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid-spec",
                format!("spec: {source}"),
            ),
            error => error.into(),
        })?;
        check(&new)?;
        Ok(tagged(state.registry.update::<O>(&of.project, &name, patched, revision)?))
    })
    .await
}

/// RFC 7396, section 2.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
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

/// Where to ask for an operation.
fn location(operation: &Operation) -> [(HeaderName, String); 1] {
    [(header::LOCATION, format!("/v1/operations/{}", operation.id))]
}

/// Asks for a change, and answers with the operation that reports on it.
pub(crate) async fn change(
    state: Arc<State>,
    ask: impl FnOnce(&State) -> Result<Operation, Problem> + Send + 'static,
) -> Result<impl IntoResponse, Problem> {
    blocking(move || {
        let operation = ask(&state)?;
        Ok((StatusCode::ACCEPTED, location(&operation), Json(operation)))
    })
    .await
}

/// Asks for a new object, and answers with it and the operation, as `body` has them.
pub(crate) async fn create<O: Object, B: Serialize + 'static>(
    state: Arc<State>,
    ask: impl FnOnce(&State) -> Result<(Kept<O>, Operation), Problem> + Send + 'static,
    body: impl FnOnce(O, Operation) -> B + Send + 'static,
) -> Result<impl IntoResponse, Problem> {
    blocking(move || {
        let (Kept { object, revision }, operation) = ask(&state)?;
        let head = (StatusCode::ACCEPTED, etag(revision), location(&operation));
        Ok((head.0, head.1, head.2, Json(body(object, operation)).into_response()))
    })
    .await
}

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
