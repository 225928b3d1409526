//! Dense weights under their module paths, and their optimizer's state.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::{ModuleOptimizer, OptimizerRecord};
use burn::tensor::{Tensor, TensorData};
use burn_pack::Scalar;
use crossfield_core::rng::name_key;
use crossfield_embedding::{Snapshot, SnapshotTensor};
use serde::{Deserialize, Serialize};

use crate::Error;

/// A tensor on the host.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HostTensor {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl HostTensor {
    pub(crate) fn as_snapshot(&self) -> SnapshotTensor<'_> {
        SnapshotTensor::from_slice(self.shape.clone(), &self.values)
    }

    fn read(snapshot: &mut Snapshot, name: &str, shape: Vec<usize>) -> Result<Self, Error> {
        let mut values = Vec::with_capacity(shape.iter().product());
        snapshot.read(name, &shape, |block| values.extend_from_slice(block))?;
        Ok(Self { shape, values })
    }
}

/// A number of an optimizer's state that is no tensor: a count of steps, say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Number {
    Int(i64),
    Uint(u64),
    Float(f64),
    Bool(bool),
}

/// Gives every weight the id that follows from its module path. Burn draws ids at random, and
/// keys the optimizer's state by them.
pub(crate) fn with_ids_from_paths<M: Module>(model: M) -> M {
    struct Named(Vec<String>);
    impl ModuleMapper for Named {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (_, tensor, mapper) = param.consume();
            Param::from_mapped_value(id_of(&self.0.join(".")), tensor, mapper)
        }
    }
    model.map(&mut Named(Vec::new()))
}

fn id_of(path: &str) -> ParamId {
    ParamId::from(name_key(path))
}

/// The dense weights by module path.
pub(crate) fn weights<M: Module>(model: &M) -> BTreeMap<String, HostTensor> {
    struct Collect {
        path: Vec<String>,
        weights: BTreeMap<String, HostTensor>,
    }
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            let shape = tensor.dims().to_vec();
            let values = tensor
                .try_into_vec_as::<f32>()
                .expect("dense weights are floats");
            self.weights
                .insert(self.path.join("."), HostTensor { shape, values });
        }
    }
    let mut collect = Collect {
        path: Vec::new(),
        weights: BTreeMap::new(),
    };
    model.visit(&mut collect);
    collect.weights
}

/// Replaces the dense weights by those of a snapshot.
pub(crate) fn load_weights<M: Module>(model: M, snapshot: &mut Snapshot) -> Result<M, Error> {
    struct Replace<'a> {
        path: Vec<String>,
        snapshot: &'a mut Snapshot,
        error: Option<Error>,
    }
    impl ModuleMapper for Replace<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, tensor, mapper) = param.consume();
            let shape = tensor.dims();
            let read = HostTensor::read(self.snapshot, &self.path.join("."), shape.to_vec());
            let tensor = match read {
                Ok(host) => {
                    let data = TensorData::new(host.values, shape);
                    let loaded = Tensor::from_data(data, &tensor.device());
                    if tensor.is_require_grad() {
                        loaded.require_grad()
                    } else {
                        loaded
                    }
                }
                Err(error) => {
                    self.error.get_or_insert(error);
                    tensor
                }
            };
            Param::from_mapped_value(id, tensor, mapper)
        }
    }
    let mut replace = Replace {
        path: Vec::new(),
        snapshot,
        error: None,
    };
    let model = model.map(&mut replace);
    replace.error.map_or(Ok(model), Err)
}

/// The optimizer's state: tensors and numbers under `<module path>.<part>`. `weights` are the
/// model's.
pub(crate) fn optimizer_state(
    optimizer: &ModuleOptimizer,
    weights: &BTreeMap<String, HostTensor>,
) -> (BTreeMap<String, HostTensor>, BTreeMap<String, Number>) {
    let internal = "Burn reads what it wrote";
    let bytes = optimizer.to_record().into_bytes().expect(internal);
    let reader = burn_pack::Reader::from_bytes(bytes).expect(internal);
    let paths = paths_by_id(weights);
    let rename = |name: &str| {
        let (id, part) = name
            .split_once('.')
            .expect("optimizer state is named id.part");
        format!("{}.{part}", paths[id])
    };
    let numbers = reader
        .scalars()
        .iter()
        .map(|(name, value)| {
            let number = match *value {
                Scalar::Int(value) => Number::Int(value),
                Scalar::UInt(value) => Number::Uint(value),
                Scalar::Float(value) => Number::Float(value),
                Scalar::Bool(value) => Number::Bool(value),
            };
            (rename(name), number)
        })
        .collect();
    let tensors = reader
        .into_tensors()
        .expect(internal)
        .into_iter()
        .map(|tensor| {
            let (name, dtype, shape, _, bytes) = tensor.into_parts().expect(internal);
            let shape = shape.to_vec();
            let values = TensorData::from_bytes(bytes, shape.clone(), dtype)
                .try_into_vec::<f32>()
                .expect("optimizer state is f32");
            (rename(&name), HostTensor { shape, values })
        })
        .collect();
    (tensors, numbers)
}

/// Gives the optimizer the state that [`optimizer_state`] took out of one; `snapshot` holds the
/// tensors under `prefix`.
pub(crate) fn load_optimizer_state<M: Module>(
    optimizer: ModuleOptimizer,
    model: &M,
    snapshot: &mut Snapshot,
    prefix: &str,
    numbers: &BTreeMap<String, Number>,
) -> Result<ModuleOptimizer, Error> {
    let internal = "Burn reads what burn_pack writes";
    let paths = paths_by_id(&weights(model));
    let mut tensors = Vec::new();
    for name in snapshot.names() {
        let Some((id, part)) = name
            .strip_prefix(prefix)
            .and_then(|name| owner(&paths, name))
        else {
            continue;
        };
        let shape = snapshot.shape(&name).unwrap_or_default().to_vec();
        let host = HostTensor::read(snapshot, &name, shape)?;
        let data = TensorData::new(host.values, host.shape.clone());
        let (bytes, shape, dtype) = data.into_parts();
        let name = format!("{id}.{part}");
        tensors.push(burn_pack::Tensor::new(
            name,
            dtype,
            shape,
            id.parse().ok(),
            bytes,
        ));
    }
    let mut writer = burn_pack::Writer::new(tensors);
    for (name, number) in numbers {
        let Some((id, part)) = owner(&paths, name) else {
            continue;
        };
        let scalar = match *number {
            Number::Int(value) => Scalar::Int(value),
            Number::Uint(value) => Scalar::UInt(value),
            Number::Float(value) => Scalar::Float(value),
            Number::Bool(value) => Scalar::Bool(value),
        };
        writer = writer.with_scalar(&format!("{id}.{part}"), scalar);
    }
    let bytes = writer.into_bytes().expect(internal);
    Ok(optimizer.load_record(OptimizerRecord::from_bytes(bytes).expect(internal)))
}

/// Module paths by the text of their weight's id, as Burn's optimizer record spells it.
fn paths_by_id(weights: &BTreeMap<String, HostTensor>) -> BTreeMap<String, String> {
    weights
        .keys()
        .map(|path| (id_of(path).val().to_string(), path.clone()))
        .collect()
}

/// The weight that `name` = `<path>.<part>` is state of: its id, and the part.
fn owner<'a, 'b>(paths: &'a BTreeMap<String, String>, name: &'b str) -> Option<(&'a str, &'b str)> {
    paths
        .iter()
        .filter_map(|(id, path)| {
            let part = name.strip_prefix(path.as_str())?.strip_prefix('.')?;
            Some((id.as_str(), part))
        })
        // A path may begin with another one: the longest leaves the shortest part.
        .min_by_key(|(_, part)| part.len())
}
