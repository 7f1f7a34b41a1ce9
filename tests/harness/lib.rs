//! Harness for the root tests: builds the test programs and runs the tracer on them.
