"""The operations of TensorFlow that a SavedModel from anywhere may have.

Those that compute tensors from tensors, those that call other functions of the same program, and
those of variables. Not among them is what opens a file or a connection, runs Python, prints, keeps
a table or takes strings, and those that were not reviewed.
"""

from __future__ import annotations

_CALLS = """
Case If NoOp PartitionedCall StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile While
"""

_VARIABLES = """
AssignAddVariableOp AssignSubVariableOp AssignVariableOp DisableCopyOnRead Placeholder
PlaceholderWithDefault ReadVariableOp ResourceGather ResourceGatherNd VarHandleOp VarIsInitializedOp
VariableShape
"""

_LISTS = """
EmptyTensorList TensorListConcatV2 TensorListElementShape TensorListFromTensor TensorListGather
TensorListGetItem TensorListLength TensorListPopBack TensorListPushBack TensorListReserve
TensorListResize TensorListScatterV2 TensorListSetItem TensorListSplit TensorListStack
"""

_ARITHMETIC = """
Abs Acos Acosh Add AddN AddV2 All Any ApproximateEqual ArgMax ArgMin Asin Asinh Atan Atan2 Atanh
BatchMatMul BatchMatMulV2 BatchMatMulV3 BiasAdd BiasAddV1 Bincount Bucketize Ceil ClipByValue Cos
Cosh Cross Cumprod Cumsum CumulativeLogsumexp Digamma Div DivNoNan Einsum Equal Erf Erfc Erfinv Exp
Expm1 Floor FloorDiv FloorMod Greater GreaterEqual Igamma IsFinite IsInf IsNan LeakyRelu Less
LessEqual Lgamma Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr MatMul Max Maximum Mean Min
Minimum Mod Mul MulNoNan Neg NotEqual Pow Prod RealDiv Reciprocal Relu Relu6 Rint Round Rsqrt
SegmentSum Selu Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Square SquaredDifference Sub
Sum Tan Tanh TruncateDiv TruncateMod UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd
UnsortedSegmentSum Xdivy Xlog1py Xlogy Elu
"""

_CONVOLUTIONS = """
AvgPool AvgPool3D Conv2D Conv2DBackpropInput Conv3D Conv3DBackpropInputV2 DepthwiseConv2dNative
Dilation2D FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 L2Loss LRN MaxPool MaxPool3D MaxPoolV2
MaxPoolWithArgmax
"""

# In every SavedModel of an LSTM or GRU of Keras 2, beside what a CPU computes instead.
_RECURRENT = """
CudnnRNN CudnnRNNBackprop CudnnRNNBackpropV2 CudnnRNNBackpropV3 CudnnRNNV2 CudnnRNNV3
"""

_SHAPES = """
BatchToSpaceND BroadcastArgs BroadcastTo Cast Concat ConcatOffset ConcatV2 Const DepthToSpace
DynamicPartition DynamicStitch EnsureShape ExpandDims ExtractImagePatches Fill Gather GatherNd
GatherV2 Identity IdentityN InvertPermutation LinSpace MatrixBandPart MatrixDiag MatrixDiagPart
MatrixDiagPartV2 MatrixDiagPartV3 MatrixDiagV2 MatrixDiagV3 MatrixSetDiag MatrixSetDiagV2
MatrixSetDiagV3 MirrorPad OneHot OnesLike Pack Pad PadV2 ParallelDynamicStitch PreventGradient Range
Rank Reshape Reverse ReverseSequence ReverseV2 Roll ScatterNd Select SelectV2 Shape ShapeN Size
Slice SpaceToBatchND SpaceToDepth Split SplitV Squeeze StopGradient StridedSlice TensorScatterAdd
TensorScatterMax TensorScatterMin TensorScatterUpdate Tile TopK TopKV2 Transpose Unique UniqueV2
Unpack Where ZerosLike
"""

_IMAGES = """
AdjustContrastv2 AdjustHue AdjustSaturation CropAndResize HSVToRGB ImageProjectiveTransformV3
RGBToHSV ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor ScaleAndTranslate
"""

_RANDOM = """
RandomShuffle RandomStandardNormal RandomUniform RandomUniformInt StatelessRandomGetAlg
StatelessRandomGetKeyCounter StatelessRandomNormalV2 StatelessRandomUniformFullIntV2
StatelessRandomUniformIntV2 StatelessRandomUniformV2 StatelessTruncatedNormalV2 TruncatedNormal
"""

_SPECTRA = """
Complex ComplexAbs Conj FFT FFT2D IFFT IFFT2D IRFFT IRFFT2D Imag RFFT RFFT2D Real
"""

_QUANTIZATION = """
FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel
QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 QuantizeAndDequantizeV4
"""

HARMLESS = frozenset(
    " ".join(
        (
            _CALLS,
            _VARIABLES,
            _LISTS,
            _ARITHMETIC,
            _CONVOLUTIONS,
            _RECURRENT,
            _SHAPES,
            _IMAGES,
            _RANDOM,
            _SPECTRA,
            _QUANTIZATION,
        )
    ).split()
)

# What TensorFlow's functions for saving and restoring a SavedModel need besides.
CHECKPOINT = frozenset(
    {
        "MergeV2Checkpoints",
        "RestoreV2",
        "SaveV2",
        "ShardedFilename",
        "StaticRegexFullMatch",
        "StringJoin",
    }
)
