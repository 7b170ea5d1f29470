"""From Keras 3 to tf_keras and back, with the same weights and the same outputs."""
