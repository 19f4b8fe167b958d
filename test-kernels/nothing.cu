// The smallest cubin there is: for the mode that stores machine code as it is.
extern "C" __global__ void nothing()
{
}
