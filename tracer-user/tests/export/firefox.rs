//! Profiles for the Firefox Profiler, held against what the crate `fxprof-processed-profile` writes for that profiler, and
//! against what the profiler reckons from them.

use std::collections::{BTreeMap, BTreeSet};

use fxprof_processed_profile::{
    CategoryHandle, CpuDelta, Frame, FrameFlags, FrameInfo, Profile, ReferenceTimestamp, SamplingInterval, Timestamp,
};
use serde_json::Value;
use tracer_user::{
    options::{ReportOptions, View},
    report::export::Format,
};

use super::{
    fixture::{ALLOCATED_BYTES, LIVE_BYTES, PEAK_BYTES, recording, text, threaded},
    viewed,
};

fn profile(view: View) -> Value {
    serde_json::from_str(&text(&recording(), Format::Firefox, &viewed(view))).expect("JSON")
}

fn numbers(column: &Value) -> Vec<i64> {
    column.as_array().expect("a column").iter().map(|value| value.as_i64().expect("a number")).collect()
}

/// Names of everything in an object, tables as `table.column`.
fn names(object: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (name, value) in object.as_object().expect("an object") {
        names.insert(name.clone());
        if value.get("length").is_some() {
            names.extend(value.as_object().expect("a table").keys().map(|column| format!("{name}.{column}")));
        }
    }
    names
}

#[test]
fn tables_and_columns_are_those_of_the_crate() {
    let mut reference =
        Profile::new("p", ReferenceTimestamp::from_millis_since_unix_epoch(0.0), SamplingInterval::from_millis(1));
    let at = Timestamp::from_millis_since_reference(0.0);
    let process = reference.add_process("p", 1, at);
    let thread = reference.add_thread(process, 1, at, true);
    let frame = FrameInfo {
        frame: Frame::Label(reference.intern_string("main")),
        category_pair: CategoryHandle::OTHER.into(),
        flags: FrameFlags::empty(),
    };
    let stack = reference.intern_stack_frames(thread, [frame].into_iter());
    reference.add_sample(thread, at, stack, CpuDelta::ZERO, 1);
    reference.add_allocation_sample(thread, at, stack, 16, 8);
    let counter = reference.add_counter(process, "malloc", "Memory", "");
    reference.add_counter_sample(counter, at, 1.0, 1);
    let reference = serde_json::to_value(&reference).expect("JSON");
    let ours = profile(View::Live);

    assert_eq!(ours["meta"]["preprocessedProfileVersion"], reference["meta"]["preprocessedProfileVersion"]);
    for (ours, reference, what) in [
        (&ours, &reference, "profile"),
        (&ours["meta"], &reference["meta"], "meta"),
        (&ours["threads"][0], &reference["threads"][0], "thread"),
        (&ours["counters"][0], &reference["counters"][0], "counter"),
    ] {
        let missing: Vec<String> = names(reference).difference(&names(ours)).cloned().collect();
        // Times may stand as such or as differences (processed format, version 54).
        let missing: Vec<String> = missing.into_iter().filter(|name| !name.ends_with(".timeDeltas")).collect();
        assert_eq!(missing, Vec::<String>::new(), "{what}");
    }
}

#[test]
fn columns_are_equally_long_and_every_index_is_in_range() {
    for recording in [recording(), threaded()] {
        let profile: Value =
            serde_json::from_str(&text(&recording, Format::Firefox, &ReportOptions::default())).expect("JSON");
        let n_libs = profile["libs"].as_array().expect("a list").len() as i64;
        for thread in profile["threads"].as_array().expect("a list") {
            let mut lengths = BTreeMap::new();
            for (name, table) in thread.as_object().expect("an object") {
                let Some(length) = table.get("length").and_then(Value::as_i64) else { continue };
                lengths.insert(name.as_str(), length);
                for (column, values) in table.as_object().expect("a table") {
                    if let Some(values) = values.as_array() {
                        assert_eq!(values.len() as i64, length, "{name}.{column}");
                    }
                }
            }
            lengths.insert("libs", n_libs);
            lengths.insert("strings", thread["stringArray"].as_array().expect("a list").len() as i64);
            for (table, column, target, least) in [
                ("stackTable", "prefix", "stackTable", 0),
                ("stackTable", "frame", "frameTable", 0),
                ("frameTable", "func", "funcTable", 0),
                ("funcTable", "name", "strings", 0),
                ("funcTable", "fileName", "strings", 0),
                ("funcTable", "resource", "resourceTable", -1),
                ("resourceTable", "lib", "libs", 0),
                ("resourceTable", "name", "strings", 0),
                ("nativeAllocations", "stack", "stackTable", 0),
                ("markers", "name", "strings", 0),
            ] {
                for value in thread[table][column].as_array().expect("a column").iter().filter_map(Value::as_i64) {
                    assert!((least..lengths[target]).contains(&value), "{table}.{column}: {value}");
                }
            }
            let prefixes = thread["stackTable"]["prefix"].as_array().expect("a column");
            assert!((0..).zip(prefixes).all(|(at, prefix)| prefix.as_i64().is_none_or(|prefix| prefix < at)));
        }
    }
}

/// Bytes by innermost function as the profiler's view of retained memory sums them: what has no free of the same address.
fn retained(thread: &Value) -> BTreeMap<String, i64> {
    let allocations = &thread["nativeAllocations"];
    let (weights, addresses) = (numbers(&allocations["weight"]), numbers(&allocations["memoryAddress"]));
    let mut live = BTreeMap::new();
    for (at, (weight, address)) in weights.iter().zip(addresses).enumerate() {
        if *weight >= 0 {
            assert!(live.insert(address, at).is_none(), "address {address} is given twice");
        } else {
            let of = live.remove(&address).expect("freed after it was allocated");
            assert_eq!(weights[of], -weight);
        }
    }
    let mut sums = BTreeMap::new();
    for at in live.into_values() {
        let stack = allocations["stack"][at].as_u64().expect("a stack") as usize;
        let frame = thread["stackTable"]["frame"][stack].as_u64().expect("a frame") as usize;
        let func = thread["frameTable"]["func"][frame].as_u64().expect("a function") as usize;
        let name = thread["funcTable"]["name"][func].as_u64().expect("a name") as usize;
        *sums.entry(thread["stringArray"][name].as_str().expect("text").to_owned()).or_default() += weights[at];
    }
    sums
}

#[test]
fn retained_allocated_and_freed_views_hold_the_recordings_figures() {
    let live = profile(View::Live);
    let thread = &live["threads"][0];
    let expected = [("0xdeadbeee", 64), ("[stack not stored]", 31), ("cache_add", 984), ("decode", 777)]
        .into_iter()
        .chain([("libfoo.so+0x1f30", 4096)]);
    assert_eq!(retained(thread), expected.map(|(name, bytes)| (name.to_owned(), bytes)).collect());
    let weights = numbers(&thread["nativeAllocations"]["weight"]);
    assert_eq!(weights.iter().filter(|weight| **weight > 0).sum::<i64>(), ALLOCATED_BYTES as i64);
    assert_eq!(weights.iter().filter(|weight| **weight < 0).sum::<i64>(), -((ALLOCATED_BYTES - LIVE_BYTES) as i64));

    let peak = profile(View::Peak);
    assert_eq!(retained(&peak["threads"][0]).values().sum::<i64>(), PEAK_BYTES as i64);
}

#[test]
fn allocations_stand_where_their_snapshots_are() {
    let live = profile(View::Live);
    let allocations = &live["threads"][0]["nativeAllocations"];
    let times: Vec<f64> = allocations["time"].as_array().expect("a column").iter().filter_map(Value::as_f64).collect();
    assert!(times.is_sorted(), "{times:?}");
    let until = |millis: f64| -> i64 {
        let weights = numbers(&allocations["weight"]);
        times.iter().zip(weights).filter(|(at, _)| **at <= millis).map(|(_, weight)| weight).sum()
    };
    let rest = (LIVE_BYTES - 8 * 123) as i64;
    assert_eq!([until(1000.0), until(2000.0), until(3000.0)], [rest + 123, rest + 4 * 123, rest + 8 * 123]);

    let counter = &live["counters"][0]["samples"];
    let sum: f64 = counter["count"].as_array().expect("a column").iter().filter_map(Value::as_f64).sum();
    assert!((sum - 250.0).abs() < f64::EPSILON, "{counter}");
    let markers = &live["threads"][0]["markers"];
    let names: Vec<&str> =
        markers["data"].as_array().expect("a column").iter().filter_map(|data| data["name"].as_str()).collect();
    assert_eq!(names, ["snapshot 0 start", "warm-up done", "snapshot 1 warm", "snapshot 2 end"]);
}

#[test]
fn inlined_functions_lie_at_the_depth_of_their_inlining() {
    let live = profile(View::Live);
    let thread = &live["threads"][0];
    let depth_of = |function: &str| {
        let index = |list: &Value, value: &Value| list.as_array().expect("a list").iter().position(|at| at == value);
        let name = index(&thread["stringArray"], &function.into()).expect("a string");
        let func = index(&thread["funcTable"]["name"], &name.into()).expect("a function");
        let frame = index(&thread["frameTable"]["func"], &func.into()).expect("a frame");
        (thread["frameTable"]["inlineDepth"][frame].clone(), thread["frameTable"]["line"][frame].clone())
    };
    assert_eq!(depth_of("handle"), (0.into(), 88.into()));
    assert_eq!(depth_of("decode"), (1.into(), 101.into()));
    assert_eq!(live["libs"][0]["breakpadId"], "DDCCBBAAFFEE221133445566778899000");
    assert_eq!(live["libs"][0]["codeId"], "aabbccddeeff1122334455667788990001020304");
}

#[test]
fn each_thread_has_a_track_of_its_own() {
    let profile: Value =
        serde_json::from_str(&text(&threaded(), Format::Firefox, &ReportOptions::default())).expect("JSON");
    let threads = profile["threads"].as_array().expect("a list");
    let names: Vec<&Value> = threads.iter().map(|thread| &thread["name"]).collect();
    assert_eq!(names, ["worker", "thread 101", "thread 102", "thread 103", "thread 104"]);
    assert_eq!(retained(&threads[0]).values().sum::<i64>(), 246);
}
