//! What belongs to a kernel: its callees, the order of inlining, the depth of local memory.

use std::collections::{HashMap, HashSet};

use super::index::Index;
use super::{LoadError, located};
use crate::ir::{Func, Op, Target, Val, inline, objects, spin};
use crate::lower::{FormCache, Problem, Signature, Unit, lower, signature_of};

/// A kernel ready for code generation.
pub struct Built {
    pub kernel: Func,
    pub functions: HashMap<u32, Func>,
    pub indirect: Vec<(u32, u32)>,
    pub signatures: Vec<Signature>,
    pub static_shared_len: u32,
    pub dyn_shared: u32,
    pub local_len: u32,
    pub recursive: bool,
}

/// Largest static shared memory: what an opt-in kernel may have on current devices.
const MAX_SHARED: u64 = 1 << 20;
/// Largest local memory per thread.
const MAX_LOCAL: u64 = 512 << 10;

/// Lowers every function that a kernel can reach, to see whether it can be compiled. Returns the functions whose address is taken.
pub fn check(index: &Index) -> Result<Vec<u32>, LoadError> {
    let mut forms = FormCache::default();
    let count = index.function_count();
    let mut taken: Vec<u32> = index.functions_in_initialisers();
    let mut summaries: HashMap<u32, Summary> = HashMap::new();
    let mut queue: Vec<u32> =
        (0..count).filter(|n| index.function(*n).is_entry && index.function(*n).body.is_some()).collect();
    let mut problems = Vec::new();
    let mut next = 0;
    let mut queued: HashSet<u32> = queue.iter().copied().collect();
    while next < queue.len() {
        let number = queue[next];
        next += 1;
        // Shared memory is only counted for the kernel at hand when it is compiled.
        let mut unit = Unit::default();
        match lower(index, &mut unit, &mut forms, number) {
            Ok(func) => {
                let mut summary =
                    Summary { parks: func.parks(), callees: func.callees().collect(), indirect: false };
                summary.indirect = func.calls.iter().any(|c| matches!(c.target, Target::Indirect(_)));
                taken.extend(function_ids(index, &func));
                summaries.insert(number, summary);
            }
            Err(list) => problems.extend(located(index.function(number), list)),
        }
        let callees: Vec<u32> = match summaries.get(&number) {
            Some(s) => s.callees.iter().copied().collect(),
            None => Vec::new(),
        };
        taken.sort_unstable();
        taken.dedup();
        let bodies = taken.iter().copied().filter(|f| index.function(*f).body.is_some());
        for f in callees.into_iter().chain(bodies) {
            if queued.insert(f) {
                queue.push(f);
            }
        }
    }
    // A device function that can call itself and that contains a suspension point has no place to keep its stack.
    let graph = summaries.iter().map(|(n, s)| (*n, s.callees.iter().copied().collect())).collect();
    let recursive = cyclic(&graph);
    for number in 0..count {
        let function = index.function(number);
        if recursive.contains(&number) && summaries[&number].parks && !function.is_entry {
            let what = format!("recursive function `{}` synchronises with other threads", function.name);
            problems.extend(located(function, vec![Problem { line: function.line, what }]));
        }
    }
    if problems.is_empty() { Ok(taken) } else { Err(LoadError::Unsupported { problems }) }
}

struct Summary {
    parks: bool,
    callees: HashSet<u32>,
    indirect: bool,
}

/// Functions whose ids a function's instructions mention.
fn function_ids(index: &Index, func: &Func) -> Vec<u32> {
    let values = func.insts().flat_map(|i| &i.srcs);
    let ids = values.filter_map(|v| match v {
        Val::Imm(id) => super::index::function_of_id(*id, index.function_count()),
        _ => None,
    });
    ids.filter(|f| index.function(*f).body.is_some() && !index.function(*f).is_entry).collect()
}

/// Lowers a kernel with everything it can call.
pub fn build(index: &Index, kernel: u32, taken: &[u32], recursion_local: u32) -> Result<Built, LoadError> {
    let mut forms = FormCache::default();
    let mut unit = Unit::default();
    let name = index.function(kernel).name.clone();
    let error = |why: String| LoadError::Compile { kernel: name.clone(), why };

    let mut funcs: HashMap<u32, Func> = HashMap::new();
    let mut work = vec![kernel];
    let mut any_indirect = false;
    let mut callable: HashMap<Signature, Vec<u32>> = HashMap::new();
    for f in taken {
        let ast = index.function(*f);
        if ast.body.is_some() && !ast.is_entry {
            callable.entry(signature_of(&ast.returns, &ast.params)).or_default().push(*f);
        }
    }
    let mut signatures_seen = 0;
    while let Some(number) = work.pop() {
        if funcs.contains_key(&number) {
            continue;
        }
        let func = lower(index, &mut unit, &mut forms, number).map_err(|problems| {
            LoadError::Unsupported { problems: located(index.function(number), problems) }
        })?;
        work.extend(func.callees());
        any_indirect |= func.calls.iter().any(|c| matches!(c.target, Target::Indirect(_)));
        funcs.insert(number, func);
        if any_indirect {
            // Callable are the functions with a signature that some call uses.
            for signature in &unit.signatures[signatures_seen..] {
                work.extend(callable.get(signature).into_iter().flatten());
            }
            signatures_seen = unit.signatures.len();
        }
    }
    let mut indirect = Vec::new();
    if any_indirect {
        let numbers: HashMap<&Signature, u32> = unit.signatures.iter().zip(0..).collect();
        for f in taken {
            let ast = index.function(*f);
            let signature = signature_of(&ast.returns, &ast.params);
            if let (true, Some(number)) = (funcs.contains_key(f), numbers.get(&signature)) {
                indirect.push((*f, *number));
            }
        }
    }

    // Which functions read what other threads write, and which park: both spread to callers.
    let reads = spread(&funcs, spin::reads_shared_state);
    for func in funcs.values_mut() {
        spin::insert_yields(func, |f| reads.contains(&f));
    }
    let parks = spread(&funcs, Func::parks);
    let graph: HashMap<u32, Vec<u32>> = funcs
        .iter()
        .map(|(n, f)| {
            let mut callees: Vec<u32> = f.callees().collect();
            if f.calls.iter().any(|c| matches!(c.target, Target::Indirect(_))) {
                callees.extend(indirect.iter().map(|(f, _)| *f));
            }
            (*n, callees)
        })
        .collect();
    let recursive = cyclic(&graph);
    if let Some((f, _)) = indirect.iter().find(|(f, _)| parks.contains(f)) {
        return Err(error(format!(
            "function `{}`, called through a pointer, synchronises with other threads",
            funcs[f].name
        )));
    }
    if let Some(f) = parks.iter().find(|f| recursive.contains(f)) {
        return Err(error(format!("recursive function `{}` synchronises with other threads", funcs[f].name)));
    }

    let Some(mut root) = funcs.remove(&kernel) else { return Err(error("not lowered".into())) };
    let parking: HashMap<u32, &Func> =
        funcs.iter().filter(|(n, _)| parks.contains(n)).map(|(n, f)| (*n, f)).collect();
    inline::inline_parking(&mut root, &parking).map_err(error)?;
    funcs.retain(|n, _| !parks.contains(n));

    // How much local memory is needed is not known with recursion or dynamic allocation.
    let allocates = |f: &Func| f.insts().any(|i| matches!(i.op, Op::Alloca { .. } | Op::SetSp));
    let is_recursive =
        funcs.keys().any(|f| recursive.contains(f)) || allocates(&root) || funcs.values().any(allocates);
    let local = u64::from(root.local_len)
        + deepest(&graph_of(&root, &indirect), &graph, &funcs, &recursive)
        + if is_recursive { u64::from(recursion_local) } else { 0 };
    if local > MAX_LOCAL {
        return Err(error(format!("{local} bytes of local memory are too many")));
    }
    if unit.shared_len > MAX_SHARED {
        return Err(error(format!("{} bytes of shared memory are too many", unit.shared_len)));
    }
    // Dynamic shared memory follows the static part, aligned.
    let mut shared = unit.shared_len as u32;
    if unit.dyn_align > 0 {
        shared = shared.next_multiple_of(unit.dyn_align.clamp(16, 1024));
    }
    objects::promote(&mut root).map_err(error)?;
    funcs.values_mut().try_for_each(objects::promote).map_err(error)?;
    Ok(Built {
        kernel: root,
        functions: funcs,
        indirect,
        signatures: unit.signatures,
        static_shared_len: shared,
        dyn_shared: shared,
        local_len: (local as u32).next_multiple_of(16),
        recursive: is_recursive,
    })
}

fn graph_of(root: &Func, indirect: &[(u32, u32)]) -> Vec<u32> {
    let mut callees: Vec<u32> = root.callees().collect();
    if root.calls.iter().any(|c| matches!(c.target, Target::Indirect(_))) {
        callees.extend(indirect.iter().map(|(f, _)| *f));
    }
    callees
}

/// The functions with a property, and all that call one of them directly.
fn spread(funcs: &HashMap<u32, Func>, has: impl Fn(&Func) -> bool) -> HashSet<u32> {
    let graph = funcs.iter().map(|(n, f)| (*n, f.callees().collect())).collect();
    let callers = callers(&graph);
    let mut work: Vec<u32> = funcs.iter().filter(|(_, f)| has(f)).map(|(n, _)| *n).collect();
    let mut set: HashSet<u32> = work.iter().copied().collect();
    while let Some(f) = work.pop() {
        work.extend(callers.get(&f).into_iter().flatten().filter(|caller| set.insert(**caller)));
    }
    set
}

fn callers(graph: &HashMap<u32, Vec<u32>>) -> HashMap<u32, Vec<u32>> {
    let mut callers: HashMap<u32, Vec<u32>> = HashMap::new();
    for (f, callees) in graph {
        callees.iter().for_each(|c| callers.entry(*c).or_default().push(*f));
    }
    callers
}

/// Functions that lie on a cycle of calls. Takes linear time: programs can have very many functions.
fn cyclic(graph: &HashMap<u32, Vec<u32>>) -> HashSet<u32> {
    // Strongly connected components: in the order in which a search leaves the functions, last first, what still reaches one of them
    // backwards is its component.
    let mut left = Vec::with_capacity(graph.len());
    let mut seen = HashSet::new();
    for start in graph.keys() {
        if !seen.insert(*start) {
            continue;
        }
        let mut stack = vec![(*start, 0)];
        while let Some((f, next)) = stack.last_mut() {
            match graph.get(f).and_then(|callees| callees.get(*next)).copied() {
                Some(callee) => {
                    *next += 1;
                    if graph.contains_key(&callee) && seen.insert(callee) {
                        stack.push((callee, 0));
                    }
                }
                None => {
                    left.push(*f);
                    stack.pop();
                }
            }
        }
    }
    let callers = callers(graph);
    let mut result = HashSet::new();
    let mut done = HashSet::new();
    for root in left.into_iter().rev() {
        if !done.insert(root) {
            continue;
        }
        let mut component = vec![root];
        let mut at = 0;
        while let Some(f) = component.get(at).copied() {
            at += 1;
            component.extend(callers.get(&f).into_iter().flatten().filter(|caller| done.insert(**caller)));
        }
        if component.len() > 1 || graph.get(&root).is_some_and(|callees| callees.contains(&root)) {
            result.extend(component);
        }
    }
    result
}

/// Most bytes of local memory that a chain of calls below `callees` needs; cycles count once (their rest is dynamic).
fn deepest(
    callees: &[u32],
    graph: &HashMap<u32, Vec<u32>>,
    funcs: &HashMap<u32, Func>,
    recursive: &HashSet<u32>,
) -> u64 {
    fn depth(
        f: u32,
        graph: &HashMap<u32, Vec<u32>>,
        funcs: &HashMap<u32, Func>,
        recursive: &HashSet<u32>,
        known: &mut HashMap<u32, u64>,
        open: &mut HashSet<u32>,
    ) -> u64 {
        if let Some(d) = known.get(&f) {
            return *d;
        }
        if !open.insert(f) {
            return 0;
        }
        let own = funcs.get(&f).map_or(0, |f| u64::from(f.local_len));
        let below = graph
            .get(&f)
            .into_iter()
            .flatten()
            .map(|c| depth(*c, graph, funcs, recursive, known, open))
            .max();
        open.remove(&f);
        let total = own + below.unwrap_or(0);
        if !recursive.contains(&f) {
            known.insert(f, total);
        }
        total
    }
    // With cycles what is below a function depends on where the walk came from: the sum is a bound. It is taken for very large
    // graphs, too, to bound the depth of this walk.
    if funcs.len() > 512 || callees.iter().any(|c| reaches_cycle(*c, graph, recursive)) {
        return funcs.values().map(|f| u64::from(f.local_len)).sum();
    }
    let (mut known, mut open) = (HashMap::new(), HashSet::new());
    callees.iter().map(|c| depth(*c, graph, funcs, recursive, &mut known, &mut open)).max().unwrap_or(0)
}

fn reaches_cycle(start: u32, graph: &HashMap<u32, Vec<u32>>, recursive: &HashSet<u32>) -> bool {
    let mut seen = HashSet::new();
    let mut work = vec![start];
    while let Some(f) = work.pop() {
        if recursive.contains(&f) {
            return true;
        }
        if seen.insert(f) {
            work.extend(graph.get(&f).into_iter().flatten());
        }
    }
    false
}
