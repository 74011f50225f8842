"""Tests of CPython that do not pass in a workflow, each with the reason.

A test that is listed here and passes is an error: take it off. A name that a version of Python does
not have is passed over.
"""

from __future__ import annotations

import sys

_LISTED: dict[str, str] = {
    "as_completed gets bare coroutines and keeps them in a set: refused, for want of an order": """
        tasks.BaseTaskTests.test_as_completed
        tasks.BaseTaskTests.test_as_completed_concurrent
        tasks.BaseTaskTests.test_as_completed_coroutine_use_running_loop
        tasks.BaseTaskTests.test_as_completed_coroutine_without_loop
        tasks.BaseTaskTests.test_as_completed_duplicate_coroutines
        tasks.BaseTaskTests.test_as_completed_reverse_wait
        tasks.BaseTaskTests.test_as_completed_with_unused_timeout
        tasks.BaseTaskTests.test_as_completed_resume_iterator
        tasks.BaseTaskTests.test_as_completed_same_tasks_in_as_out
    """,
    "it counts time below a second; timers are durable and of whole seconds": """
        tasks.BaseTaskTests.test_as_completed_with_timeout
        tasks.BaseTaskTests.test_sleep
        tasks.BaseTaskTests.test_task_cancel_sleeping_task
        tasks.BaseTaskTests.test_wait
        tasks.BaseTaskTests.test_wait_concurrent_complete
        tasks.BaseTaskTests.test_wait_first_completed
        tasks.BaseTaskTests.test_wait_first_exception_in_wait
        tasks.BaseTaskTests.test_wait_with_exception
        tasks.BaseTaskTests.test_wait_with_iterator_of_tasks
        tasks.BaseTaskTests.test_wait_with_timeout
    """,
    "two timers that are due at once are over one after the other, and code runs in between": """
        timeouts.TimeoutTests.test_nested_timeouts
    """,
    "it asks for no running loop or task; here the test itself runs in one": """
        tasks.BaseTaskTests.test_current_task
        tasks.BaseTaskTests.test_current_task_with_interleaving_tasks
        tasks.BaseTaskTests.test_ensure_future_coroutine
        tasks.BaseTaskTests.test_shield_coroutine_without_loop
        tasks.CCurrentLoopTests.test_current_task_no_running_loop
        tasks.CCurrentLoopTests.test_current_task_no_running_loop_implicit
        tasks.CCurrentLoopTests.test_current_task_with_implicit_loop
        tasks.CoroutineGatherTests.test_constructor_without_loop
        tasks.FutureGatherTests.test_constructor_empty_sequence_without_loop
        futures.BaseFutureTests.test_constructor_without_loop
    """,
    "it needs a second loop; a workflow has one": """
        tasks.BaseTaskTests.test_ensure_future_error_msg
        tasks.BaseTaskTests.test_ensure_future_future
        tasks.BaseTaskTests.test_ensure_future_task
        tasks.BaseTaskTests.test_other_loop_future
        tasks.FutureGatherTests.test_constructor_heterogenous_futures
    """,
    "it starts threads or processes, which workflow code may not": """
        tasks.CoroutineGatherTests.test_env_var_debug
        tasks.FutureGatherTests.test_env_var_debug
        tasks.RunCoroutineThreadsafeTests.test_run_coroutine_threadsafe
        tasks.RunCoroutineThreadsafeTests.test_run_coroutine_threadsafe_and_cancel
        tasks.RunCoroutineThreadsafeTests.test_run_coroutine_threadsafe_task_cancelled
        tasks.RunCoroutineThreadsafeTests.test_run_coroutine_threadsafe_task_factory_exception
        tasks.RunCoroutineThreadsafeTests.test_run_coroutine_threadsafe_with_exception
        tasks.RunCoroutineThreadsafeTests.test_run_coroutine_threadsafe_with_timeout
        futures.BaseFutureTests.test_wrap_future
        futures.BaseFutureTests.test_wrap_future_use_global_loop
        futures.BaseFutureTests.test_wrap_future_use_running_loop
        futures.BaseFutureTests.test_wrap_future_without_loop
    """,
    "it looks for reports in asyncio's log or sets a handler; ours are in pyworkflow's log": """
        tasks.BaseTaskTests.test_error_in_call_soon
        tasks.BaseTaskTests.test_shield_cancel_outer_exception
        tasks.BaseTaskTests.test_shield_cancel_outer_exception_never_retrieved
        tasks.BaseTaskTests.test_shield_cancel_outer_result
        tasks.BaseTaskTests.test_shield_cancel_outer_twice_exception
        tasks.BaseTaskTests.test_log_destroyed_pending_task
        tasks.CoroutineGatherTests.test_issue46672
        futures.BaseFutureTests.test_future_exception_never_retrieved
        futures.BaseFutureTests.test_future_exception_never_retrieved_debug
        futures.BaseFutureTests.test_tb_logger_exception_unretrieved
        futures2.FutureTests.test_handle_exc_handler_correct_context
        futures2.FutureTests.test_task_exc_handler_correct_context
    """,
    "it is about debug mode, which the loop does not have: it measures time": """
        tasks.BaseTaskTests.test_task_source_traceback
        futures.BaseFutureTests.test_future_source_traceback
        futures.BaseFutureTests.test_future_repr
    """,
    "it stops the loop while that runs the test": """
        tasks.BaseTaskTests.test_stop_while_run_in_complete
    """,
    "SystemExit in a task ends the run, as it ends asyncio's loop; the test goes on there": """
        tasks.BaseTaskTests.test_baseexception_during_cancel
    """,
    "it looks at a private attribute of a timer's handle": """
        tasks.BaseTaskTests.test_sleep_cancel
    """,
    "tasks are named after their place, the same in each replay, and not by a global counter": """
        tasks.BaseTaskTests.test_task_repr_autogenerated
    """,
}

NOT_PASSED = {name: reason for reason, names in _LISTED.items() for name in names.split()}

NOT_RUN = dict.fromkeys(
    [
        "waitfor.AsyncioWaitForTest.test_asyncio_wait_for_cancelled",
        "waitfor.AsyncioWaitForTest.test_asyncio_wait_for_timeout",
    ],
    "it sleeps in a loop until real time has passed; in a workflow each sleep is a durable timer, "
    "so its operations would be hundreds, and others in each run",
)
"""Those that can't even be tried. A test or a class of tests."""

if sys.version_info >= (3, 14):
    NOT_PASSED["tasks.BaseTaskTests.test_eager_start_true_no_loop"] = (
        "a task begins with the next handle, whatever eager_start says"
    )
    NOT_PASSED["futures.BaseFutureTests.test_wrap_future_cancel2"] = (
        "it completes a future while the loop does not run; here it does"
    )
    for case in "TestTaskGroup", "TestEagerTaskTaskGroup":
        for test in "", "_wr":
            NOT_PASSED[f"taskgroups.{case}.test_exception_refcycles_parent_task{test}"] = (
                "a run keeps its tasks to its end, and so what they have raised"
            )
    NOT_RUN["tasks.CIntrospectionTests"] = (
        "it enters and leaves tasks of loops that don't run, and so leaves that of the workflow: "
        "since 3.14 a thread has one current task"
    )
