//! Every service model this endpoint serves, with the routes of each: which operation a request means.
//!
//! One endpoint serves them all: their paths begin with different dates (model).

use http::Method;

use crate::model::{LoadModelError, Model};
use crate::routing::{BuildRoutesError, Route, Routes};

/// One service's model and the routes made of it.
#[derive(Debug)]
struct Service {
    model: Model,
    routes: Routes,
}

#[derive(Debug)]
pub struct Catalogue(Vec<Service>);

/// The operation a request means, with the model it belongs to.
#[derive(Debug)]
pub struct Found<'c> {
    pub model: &'c Model,
    pub route: Route<'c>,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadCatalogueError {
    #[error("a service model could not be loaded")]
    Model(#[from] LoadModelError),
    #[error("the routes of a service model could not be built")]
    Routes(#[from] BuildRoutesError),
    #[error("there is no service model")]
    Empty,
}

impl Catalogue {
    /// The models this daemon serves.
    pub fn load() -> Result<Self, LoadCatalogueError> {
        let service = |text: &&str| -> Result<Service, LoadCatalogueError> {
            let model = Model::parse(text)?;
            let routes = Routes::new(&model)?;
            Ok(Service { model, routes })
        };
        let services = emberbox_wire::MODELS.iter().map(service).collect::<Result<Vec<_>, _>>()?;
        if services.is_empty() { Err(LoadCatalogueError::Empty) } else { Ok(Self(services)) }
    }

    /// `None` for a path or method no operation has, and for labels that are not UTF-8.
    pub fn find(&self, method: &Method, path: &str) -> Option<Found<'_>> {
        self.0.iter().find_map(|service| Some(Found { model: &service.model, route: service.routes.find(&service.model, method, path)? }))
    }

    /// The model whose errors answer what is no operation's.
    pub fn main(&self) -> &Model {
        &self.0[0].model
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_operation_of_every_model_is_found_by_its_path() {
        let catalogue = Catalogue::load().unwrap();
        let mut names = Vec::new();
        for service in &catalogue.0 {
            for operation in &service.model.operations {
                let path = operation.uri.replace('{', "v-").replace('}', "");
                let found = catalogue.find(&operation.method, &path).unwrap();
                assert_eq!(found.route.operation.name, operation.name);
                names.push(operation.name.clone());
            }
        }
        names.sort();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a name means one operation");
        assert!(names.len() > 30, "{}", names.len());
    }

    #[test]
    fn connectors_are_found_by_arns_encoded_or_raw() {
        let catalogue = Catalogue::load().unwrap();
        let arn = "arn:aws:lambda:us-east-1:123456789012:network-connector:nc-1:2";
        for given in [arn.to_owned(), arn.replace(':', "%3A")] {
            let found = catalogue.find(&Method::GET, &format!("/2026-04-04/network-connectors/{given}/versions")).unwrap();
            assert_eq!(found.route.operation.name, "ListNetworkConnectorVersions");
            assert_eq!(found.route.labels, [("Identifier".to_owned(), arn.to_owned())]);
        }
    }
}
