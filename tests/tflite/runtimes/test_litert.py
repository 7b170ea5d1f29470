import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from keras_kd._limits import held_bytes
from keras_kd._worker import Worker
from keras_kd.tflite import TFLiteModel
from keras_kd.tflite.runtimes import _litert_worker, litert
from keras_kd.tflite.runtimes.litert import LiteRTInterpreter


@pytest.fixture
def worker(monkeypatch):
    """A process of LiteRT for one test."""
    with Worker(litert.MODULE) as worker:
        monkeypatch.setattr(litert.call, "__kwdefaults__", {"worker": worker})
        yield worker


def test_the_process_holds_neither_keras_nor_tensorflow(worker, float_model, images):
    TFLiteModel(float_model.content).predict(images[:1])
    child = worker._child.process.pid
    with open(f"/proc/{child}/maps") as file:
        libraries = file.read()
    assert "ai_edge_litert" in libraries
    assert "libtensorflow" not in libraries


def test_all_examples_go_through_the_pipe_in_parts(worker, float_model, images, monkeypatch):
    monkeypatch.setattr(litert, "_BYTES_AT_ONCE", 5 * images[:1].nbytes)
    calls = []
    whole = float_model.predict(images)
    call = worker.call
    monkeypatch.setattr(
        worker, "call", lambda *words, **kw: calls.append(words[0]) or call(*words, **kw)
    )
    np.testing.assert_array_equal(TFLiteModel(float_model.content).predict(images), whole)
    assert calls.count("run_each") == 13
    assert calls.count("load") == 1


@pytest.mark.parametrize("number", [6, 9, 11])
def test_a_model_that_was_loaded_before_a_crash_runs_on(worker, float_model, images, number):
    model = TFLiteModel(float_model.content)
    expected = model.predict(images)
    worker._child.process.send_signal(number)
    worker._child.process.wait()
    np.testing.assert_array_equal(model.predict(images), expected)


def test_models_that_left_are_loaded_again(worker, float_model, micro_model, images, monkeypatch):
    first, second = LiteRTInterpreter(float_model.content), LiteRTInterpreter(micro_model.content)
    expected = first.run_each([images[:2]])
    for number in range(2, _litert_worker._MOST_LOADED + 2):
        LiteRTInterpreter(micro_model.content, "builtin", number)
    np.testing.assert_array_equal(first.run_each([images[:2]])[0], expected[0])
    assert len(second.run_each([np.zeros((2, 8, 8, 1), np.int8)])[0]) == 2


@pytest.fixture
def replaced(monkeypatch, tmp_path):
    """A function that puts other code in the place of what runs in LiteRT's process."""
    workers = []

    def replace(code):
        (tmp_path / "other_litert.py").write_text(f"def load(*arguments):\n    {code}\n")
        monkeypatch.syspath_prepend(tmp_path)
        workers.append(Worker("other_litert"))
        monkeypatch.setattr(litert.call, "__kwdefaults__", {"worker": workers[0]})

    yield replace
    for worker in workers:
        worker.close()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.kill(os.getpid(), 11)", r"its process was ended by signal 11 \(SIGSEGV\)"),
        ("import time; time.sleep(600)", "it took over 0.3 seconds, of which KERAS_KD_SECONDS"),
        ("raise RuntimeError('no kernel')", "RuntimeError: no kernel"),
        ("raise MemoryError", ""),
    ],
    ids=["crash", "time", "error", "memory"],
)
def test_the_end_of_the_process_is_one_error(
    float_model, replaced, monkeypatch, tmp_path, code, reason
):
    monkeypatch.setenv("KERAS_KD_SECONDS", "0.3")
    replaced(code)
    with pytest.raises(ValueError, match=rf"Received a model on which LiteRT fails \({reason}"):
        TFLiteModel(float_model.content)
    path = tmp_path / "x.tflite"
    path.write_bytes(float_model.content)
    with pytest.raises(ValueError, match=r"x.tflite: Received a model"):
        TFLiteModel.load(path)


def test_files_without_ends_are_refused(float_model):
    from keras_kd.tflite.contents.flatbuffer import FlatBufferModel

    flatbuffer = FlatBufferModel(float_model.content)
    (graph,) = flatbuffer._model.subgraphs
    for name in ("inputs", "outputs"):
        ends = getattr(graph, name)
        setattr(graph, name, [])
        signatures, flatbuffer._model.signatureDefs = flatbuffer._model.signatureDefs, []
        with pytest.raises(ValueError, match=rf"{name} \[\]\. Expected at least one"):
            TFLiteModel(flatbuffer.aligned())
        setattr(graph, name, ends)
        flatbuffer._model.signatureDefs = signatures


@pytest.fixture(scope="module")
def giant():
    """Some hundred bytes that take 6 GB when they run."""
    spec = tf.TensorSpec((1, 3), tf.float32)
    function = tf.function(lambda x: tf.reduce_mean(tf.tile(x, (1, 5 * 10**8)), 1), [spec])
    concrete = function.get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], function).convert()


def with_shape(content, before, after):
    """A file that says something else of the sizes of its tensors."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for tensor in model.subgraphs[0].tensors:
        if list(tensor.shape) == before:
            tensor.shape = after
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize("shape", [[1, 15 * 10**8], [1, 1]])
def test_tensors_that_fill_the_memory(giant, shape, worker):
    """Also where the file does not say so, and only LiteRT finds out."""
    with pytest.raises(ValueError, match=r"its tensors take 6\d{9} bytes at one time, at TILE"):
        LiteRTInterpreter(with_shape(giant, [1, 15 * 10**8], shape))
    assert held_bytes(worker._child.process.pid) < 500 * 2**20
